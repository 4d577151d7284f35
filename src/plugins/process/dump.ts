import type { Host } from '../contract/host.js'
import type { ProcessFacts } from '../contract/job.js'
import type { DumpPlan, Problem } from '../contract/plan.js'
import type { DumpContext } from '../contract/runtime.js'

/**
 * A bare process needs nothing beyond what holds for every tree, unless it lives in a mount namespace of its own (`unshare`, a sandbox):
 * then mounts that lead outside are CRIU's to find.
 */
export async function dump(host: Host, context: DumpContext): Promise<DumpPlan> {
  const [root] = context.snapshot.processes
  if (root === undefined) return { criu: {}, attachments: [], problems: [] }
  const hasMounts = root.namespaces.mnt !== context.mountNamespace
  return {
    criu: hasMounts ? { auto_ext_mnt: true, ext_masters: true, external: ['mnt[]:ms'] } : {},
    attachments: [],
    problems: [...cgroupProblems(context, root), ...(hasMounts ? await mountProblems(host, context, root) : [])],
  }
}

const refuse = ({ pid, name }: ProcessFacts, message: string): readonly Problem[] => [
  {
    severity: 'error',
    id: 'namespace',
    message: `process ${pid} (${name}) ${message}: CRIU could not restore it`,
    hint: 'start it as a container, and dump that',
    pid,
  },
]

/** One that shares the cgroup of CRIU comes back in no namespace of its own, or not at all, whatever the mode of manage_cgroups. */
const cgroupProblems = ({ cgroupNamespace }: DumpContext, root: ProcessFacts): readonly Problem[] =>
  root.namespaces.cgroup === cgroupNamespace ? [] : refuse(root, 'has a cgroup namespace of its own')

/** What CRIU dumps and then cannot restore. */
async function mountProblems(host: Host, { snapshot, userNamespace }: DumpContext, root: ProcessFacts): Promise<readonly Problem[]> {
  // There the mounts that came from outside are locked together, and CRIU mounts them one by one.
  if (root.namespaces.user !== userNamespace) return refuse(root, 'has a mount namespace in a user namespace of its own')
  const own = snapshot.mounts.find(({ path }) => path === '/')
  const outside = ((await host.readText('/proc/self/mountinfo')) ?? '').split('\n').map((line) => line.split(' '))
  const isOurs = outside.some(([, , device, at, path]) => path === '/' && device === own?.device && at === own?.root)
  return isOurs ? [] : refuse(root, 'has another root file system than this machine')
}

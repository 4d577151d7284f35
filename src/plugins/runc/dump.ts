import type { Host } from '../contract/host.js'
import type { ProcessFacts, Snapshot } from '../contract/job.js'
import { CONFIG_DUMP, type ContainerDump, type DumpPlan, type Problem, SPEC_DUMP } from '../contract/plan.js'
import type { DumpContext } from '../contract/runtime.js'
import { freezerOf } from './cgroup.js'
import { type DriverMount, driverMounts, externalAtDump } from './driver-mounts.js'
import { encodeNetwork, lookAtNetwork, NETWORK } from './network.js'
import { type ContainerState, findState, identityOf, missing, specFile } from './state.js'

/** What runc and crun look for in a checkpoint: where the standard streams led. */
export const DESCRIPTORS = 'descriptors.json'
/** What the runtime knew of the container and the user may not have said. */
export const CONTAINER = 'container.json'
export interface SavedContainer {
  readonly bundle: string
  readonly systemdCgroup: boolean
  readonly driverMounts: readonly DriverMount[]
}

/**
 * CRIU is asked directly, with what the runtime itself would say of the container: which mounts and namespaces are the outside's, where its
 * cgroup is. The restore is the runtime's (restore.ts), so the names given to things of the outside are those it will use.
 */
export async function dump(host: Host, { snapshot, identity: named }: DumpContext): Promise<DumpPlan> {
  const identity = identityOf(named)
  const state = await findState(host, identity)
  const [init] = snapshot.processes
  if (!state || !init) throw missing(identity)
  const freezer = freezerOf(init.cgroups)
  const hasOwnNetwork = state.namespaces.some(({ type, path }) => type === 'network' && path === '')
  const network = hasOwnNetwork ? await lookAtNetwork(host, init.pid) : undefined
  const spec = await host.readText(specFile(identity, state))
  const { id, runtime } = identity
  const binds = new Set(state.binds.map(withoutTrailingSlash))
  const drivers = await driverMounts(
    host,
    snapshot,
    ({ path, root, filesystem }) => filesystem === 'cgroup' || binds.has(path) || root === '/',
  )
  return {
    criu: {
      root: state.rootfs,
      manage_cgroups_mode: 'SOFT',
      orphan_pts_master: true,
      // Sessions and terminals are all the container's own, whatever they look like from outside.
      shell_job: false,
      // As the runtime will have it (CLONE_NEWNET): see network.ts.
      ...(network ? { empty_ns: 0x40000000 } : {}),
      external: [...externalMounts(state, snapshot), ...externalAtDump(drivers), ...externalNamespaces(state, init)],
      ...(freezer === undefined ? {} : { freeze_cgroup: freezer }),
    },
    attachments: [
      { name: DESCRIPTORS, content: json(standardStreams(init)) },
      {
        name: CONTAINER,
        content: json({
          bundle: identity.bundle || state.bundle,
          systemdCgroup: state.systemdCgroup,
          driverMounts: drivers,
        } satisfies SavedContainer),
      },
      { name: CONFIG_DUMP, content: json({ id, name: id, runtime, createdTime: state.created } satisfies ContainerDump) },
      // A bundle may have been removed since.
      ...(spec === undefined ? [] : [{ name: SPEC_DUMP, content: Buffer.from(spec) }]),
      ...(network ? [{ name: NETWORK, content: encodeNetwork(network.network) }] : []),
    ],
    problems: [...(network?.problems ?? []), ...(freezer === undefined ? [] : await strangers(host, freezer, snapshot))],
  }
}

const json = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value))

function externalMounts(state: ContainerState, { mounts }: Snapshot): readonly string[] {
  const masked = new Set(state.maskedPaths)
  const binds = new Set(state.binds.map(withoutTrailingSlash))
  return mounts.flatMap(({ path, root, filesystem }) => {
    if (filesystem === 'cgroup' || binds.has(path)) return [`mnt[${path}]:${path}`]
    // Masked directories have an empty tmpfs of their own.
    return masked.has(path) && root.endsWith('/null') ? [`mnt[${path}]:/dev/null`] : []
  })
}

const withoutTrailingSlash = (path: string): string => (path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path)

/** CRIU cannot dump from inside what it shares with others; namespaces of other kinds are joined by name at the restore. */
function externalNamespaces({ namespaces }: ContainerState, init: ProcessFacts): readonly string[] {
  const kinds = { network: ['net', 'extRootNetNS'], pid: ['pid', 'extRootPidNS'] } as const
  return namespaces.flatMap(({ type, path }) => {
    const kind = path === '' ? undefined : kinds[type as keyof typeof kinds]
    if (kind === undefined) return []
    return [`${kind[0]}[${/\d+/.exec(init.namespaces[kind[0]])?.[0] ?? ''}]:${kind[1]}`]
  })
}

const standardStreams = (init: ProcessFacts): readonly string[] =>
  [0, 1, 2].map((fd) => init.files.find((file) => file.fd === fd)?.path ?? '')

/** `runc exec` puts processes into the container that are not its init's descendants: CRIU, which dumps a tree, would find them in the way. */
async function strangers(host: Host, freezer: string, { processes }: Snapshot): Promise<readonly Problem[]> {
  const tree = new Set<number>(processes.map(({ pid }) => pid))
  const others: number[] = []
  for (const line of ((await host.readText(`${freezer}/cgroup.procs`)) ?? '').split('\n').filter(Boolean))
    if (!tree.has(Number(line)) && !(await isBelow(host, line, tree))) others.push(Number(line))
  if (others.length === 0) return []
  return [
    {
      severity: 'error',
      id: 'not-in-tree',
      message: `${others.length === 1 ? 'process' : 'processes'} ${others.join(', ')} of the container ${others.length === 1 ? 'is' : 'are'} not below its first one (started by exec)`,
      hint: 'end what was started by `runc exec`, or have it started by the container itself',
    },
  ]
}

/** A process that came after the look at the tree is below one of it; one that has ended is in nobody's way. */
async function isBelow(host: Host, pid: string, tree: ReadonlySet<number>): Promise<boolean> {
  for (let at = pid; ;) {
    const status = await host.readText(`/proc/${at}/status`)
    if (at === pid && /^State:\s+[ZX]/m.test(status ?? '')) return true
    const parent = status === undefined ? undefined : /^PPid:\s+(\d+)$/m.exec(status)?.[1]
    if (parent === undefined || tree.has(Number(parent))) return true
    if (parent === '0' || parent === '1') return false
    at = parent
  }
}

import type { Host } from '../contract/host.js'
import type { DumpPlan } from '../contract/plan.js'
import type { DumpContext } from '../contract/runtime.js'

/**
 * A bare process needs nothing beyond what holds for every tree, unless it lives in a mount namespace of its own (`unshare`, a sandbox):
 * then mounts that lead outside are CRIU's to find.
 */
export async function dump(_host: Host, { snapshot, mountNamespace }: DumpContext): Promise<DumpPlan> {
  const [root] = snapshot.processes
  const ownMounts = root !== undefined && root.namespaces.mnt !== mountNamespace
  return {
    criu: ownMounts ? { auto_ext_mnt: true, ext_masters: true, external: ['mnt[]:ms'] } : {},
    attachments: [],
    problems: [],
  }
}

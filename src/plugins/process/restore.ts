import type { Host } from '../contract/host.js'
import type { RestorePlan } from '../contract/plan.js'
import type { RestoreContext } from '../contract/runtime.js'

export async function restore(_host: Host, { snapshot, mountNamespace }: RestoreContext): Promise<RestorePlan> {
  const [root] = snapshot.processes
  if (root === undefined || root.namespaces.mnt === mountNamespace) return { criu: {}, inherit: [], problems: [] }
  return { criu: { auto_ext_mnt: true, ext_masters: true, external: ['mnt[]:ms'] }, inherit: [], problems: [], root: '/' }
}

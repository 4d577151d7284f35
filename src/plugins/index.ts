/** The built-in plugins, one line each. Each is loaded when it is wanted: the command line wants the one that it is about. */
import type { GpuManifest } from './contract/gpu.js'
import type { RuntimeManifest } from './contract/runtime.js'

export const BUILTINS: Readonly<Record<string, () => Promise<RuntimeManifest>>> = {
  process: async () => (await import('./process/plugin.js')).process,
  runc: async () => (await import('./runc/plugin.js')).runc,
  containerd: async () => (await import('./containerd/plugin.js')).containerd,
  k8s: async () => (await import('./k8s/plugin.js')).k8s,
}

/** All, or those of `names`, which may name others too. */
export const loadBuiltins = (names: readonly string[] = Object.keys(BUILTINS)): Promise<readonly RuntimeManifest[]> =>
  Promise.all(names.flatMap((name) => (Object.hasOwn(BUILTINS, name) ? [BUILTINS[name]!()] : [])))

/** The one that is asked about every tree. */
export const loadGpu = async (): Promise<GpuManifest> => (await import('./gpu-cuda/plugin.js')).cuda

/** The built-in plugins, one line each. */
import { containerd } from './containerd/plugin.js'
import { k8s } from './k8s/plugin.js'
import { process } from './process/plugin.js'
import { cuda } from './gpu-cuda/plugin.js'
import { runc } from './runc/plugin.js'
import type { GpuManifest } from './contract/gpu.js'
import type { RuntimeManifest } from './contract/runtime.js'

export const builtins: readonly RuntimeManifest[] = [process, runc, containerd, k8s]

/** The one that is asked about every tree. */
export const gpu: GpuManifest = cuda

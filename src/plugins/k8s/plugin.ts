import { defineRuntime } from '../contract/runtime.js'
import { DumpOptions, QueryOptions, ResolveOptions } from './options.js'

export const k8s = defineRuntime({
  name: 'k8s',
  summary: 'containers of pods that a kubelet had containerd start',
  verbs: { resolve: 'stable', query: 'stable', dump: 'stable', save: 'stable', freeze: 'stable', unfreeze: 'stable' },
  instead: {
    restore:
      'a container of a pod is started by its kubelet: give it the image made by checkpoint export --format oci-archive, or restore the checkpoint as a container of its own (cedana restore containerd, cedana restore runc)',
  },
  features: { stream: 'stable', rootfs: 'stable' },
  requires: [{ root: true }, { criu: '>=3.16' }, { binary: 'containerd', version: '>=1.6' }],
  options: { resolve: ResolveOptions, dump: DumpOptions, query: QueryOptions },
  load: async () => (await import('./runtime.js')).runtime,
})

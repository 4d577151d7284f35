import { defineRuntime } from '../contract/runtime.js'
import { QueryOptions, ResolveOptions } from './options.js'

export const containerd = defineRuntime({
  name: 'containerd',
  summary: 'containers of containerd that are run by runc or crun',
  verbs: { resolve: 'stable', query: 'stable' },
  features: {},
  requires: [{ root: true }, { criu: '>=3.16' }, { binary: 'containerd', version: '>=1.6' }],
  options: { resolve: ResolveOptions, query: QueryOptions },
  load: async () => (await import('./runtime.js')).runtime,
})

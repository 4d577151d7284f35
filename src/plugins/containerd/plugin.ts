import { defineRuntime } from '../contract/runtime.js'
import { QueryOptions, ResolveOptions, RunOptions } from './options.js'

export const containerd = defineRuntime({
  name: 'containerd',
  summary: 'containers of containerd that are run by runc or crun',
  verbs: {
    run: 'stable',
    launch: 'stable',
    resolve: 'stable',
    freeze: 'stable',
    unfreeze: 'stable',
    kill: 'stable',
    resize: 'stable',
    exitStatus: 'stable',
    remove: 'stable',
    query: 'stable',
  },
  features: {},
  requires: [{ root: true }, { criu: '>=3.16' }, { binary: 'containerd', version: '>=1.6' }],
  options: { run: RunOptions, resolve: ResolveOptions, query: QueryOptions },
  load: async () => (await import('./runtime.js')).runtime,
})

import { defineRuntime } from '../contract/runtime.js'
import { NoOptions } from '../contract/options.js'
import { QueryOptions, ResolveOptions, RestoreOptions, RunOptions } from './options.js'

export const runc = defineRuntime({
  name: 'runc',
  summary: 'OCI containers started by runc or crun',
  verbs: {
    run: 'stable',
    resolve: 'stable',
    upcoming: 'stable',
    dump: 'stable',
    restore: 'stable',
    freeze: 'stable',
    unfreeze: 'stable',
    kill: 'stable',
    remove: 'stable',
    query: 'stable',
  },
  features: { 'tcp-established': 'stable', stream: 'stable', gpu: 'experimental' },
  requires: [{ root: true }, { criu: '>=3.16' }, { binary: 'runc', version: '>=1.1' }],
  options: { run: RunOptions, resolve: ResolveOptions, dump: NoOptions, restore: RestoreOptions, query: QueryOptions },
  load: async () => (await import('./runtime.js')).runtime,
})

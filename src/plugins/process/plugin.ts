import { defineRuntime } from '../contract/runtime.js'
import { NoOptions } from '../contract/options.js'
import { QueryOptions, ResolveOptions, RunOptions } from './options.js'

export const process = defineRuntime({
  name: 'process',
  summary: 'Linux processes and their descendants',
  verbs: {
    run: 'stable',
    resolve: 'stable',
    dump: 'stable',
    restore: 'stable',
    freeze: 'stable',
    unfreeze: 'stable',
    query: 'stable',
  },
  features: { 'tcp-established': 'stable', stream: 'stable', gpu: 'experimental' },
  requires: [{ root: true }, { criu: '>=3.16' }],
  options: { run: RunOptions, resolve: ResolveOptions, dump: NoOptions, restore: NoOptions, query: QueryOptions },
  load: async () => (await import('./runtime.js')).runtime,
})

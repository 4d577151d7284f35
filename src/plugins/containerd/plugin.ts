import { defineRuntime } from '../contract/runtime.js'
import { DumpOptions, QueryOptions, ResolveOptions, RestoreOptions, RunOptions } from './options.js'

export const containerd = defineRuntime({
  name: 'containerd',
  summary: 'containers of containerd that are run by runc or crun',
  verbs: {
    run: 'stable',
    launch: 'stable',
    resolve: 'stable',
    upcoming: 'stable',
    dump: 'stable',
    save: 'stable',
    restore: 'stable',
    freeze: 'stable',
    unfreeze: 'stable',
    kill: 'stable',
    resize: 'stable',
    exitStatus: 'stable',
    remove: 'stable',
    query: 'stable',
  },
  features: { 'tcp-established': 'stable', stream: 'stable', rootfs: 'stable', gpu: 'experimental' },
  requires: [{ root: true }, { criu: '>=3.16' }, { binary: 'containerd', version: '>=1.6' }],
  options: { run: RunOptions, resolve: ResolveOptions, dump: DumpOptions, restore: RestoreOptions, query: QueryOptions },
  load: async () => (await import('./runtime.js')).runtime,
})

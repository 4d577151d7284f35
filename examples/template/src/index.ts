/** What __NAME__ is, as data: commands and flags of cedana, its feature matrix and `cedana check` are made of this. */
import { defineRuntime, NoOptions, z } from 'cedana/plugin'

const pidFile = z
  .string()
  .startsWith('/', 'must be an absolute path')
  .meta({ positional: true, path: true, value: 'PIDFILE', description: 'file that holds the PID of the target' })

export const RunOptions = z.strictObject({
  pidFile,
  program: z.string().min(1).meta({ positional: true, executable: true, description: 'program to run, looked up in PATH' }),
  args: z.array(z.string()).default([]).meta({ positional: true, description: 'its arguments; flags after -- are its own' }),
})
export const ResolveOptions = z.strictObject({ pidFile })

export const plugin = defineRuntime({
  name: '__NAME__',
  summary: 'processes with a PID file',
  verbs: {
    run: 'experimental',
    resolve: 'experimental',
    upcoming: 'experimental',
    dump: 'experimental',
    restore: 'experimental',
    freeze: 'experimental',
    unfreeze: 'experimental',
  },
  features: {},
  requires: [{ root: true }, { criu: '>=3.16' }],
  options: { run: RunOptions, resolve: ResolveOptions, dump: NoOptions, restore: NoOptions },
  load: async () => (await import('./runtime.js')).runtime,
})

/** Containers of Podman, as data. */
import { defineRuntime, NoOptions, z } from 'cedana/plugin'

/** What says which container is meant. */
const container = z.string().min(1, 'missing name').meta({ positional: true, description: 'name or id of the container' })
const podman = z
  .array(z.string())
  .default([])
  .meta({ value: 'FLAG', verbatim: true, description: 'flag for podman itself, such as --root=DIR (repeatable)' })

export const RunOptions = z.strictObject({
  image: z.string().min(1).meta({ positional: true, description: 'image to run' }),
  args: z.array(z.string()).default([]).meta({ positional: true, description: 'command in it; flags after -- are its own' }),
  name: z.string().min(1).optional().meta({ description: 'name of the container (default: the job id)' }),
  create: z
    .array(z.string())
    .default([])
    .meta({ value: 'FLAG', verbatim: true, description: 'flag for podman create, such as --network=host (repeatable)' }),
  podman,
})
export const ResolveOptions = z.strictObject({ container, podman })
export const QueryOptions = z.strictObject({ podman })

export const plugin = defineRuntime({
  name: 'podman',
  summary: 'containers of Podman that are run by runc',
  verbs: {
    run: 'stable',
    launch: 'stable',
    resolve: 'stable',
    upcoming: 'stable',
    dump: 'stable',
    restore: 'stable',
    freeze: 'stable',
    unfreeze: 'stable',
    kill: 'stable',
    remove: 'stable',
    exitStatus: 'stable',
    query: 'stable',
  },
  features: {},
  requires: [{ root: true }, { criu: '>=3.16' }, { binary: 'podman', version: '>=4.0' }, { binary: 'runc', version: '>=1.1' }],
  options: { run: RunOptions, resolve: ResolveOptions, dump: NoOptions, restore: NoOptions, query: QueryOptions },
  load: async () => (await import('./runtime.js')).runtime,
})

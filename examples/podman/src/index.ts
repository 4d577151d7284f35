/** Containers of Podman, as data. */
import { defineRuntime, NoOptions, stable, z } from 'cedana/plugin'

const name = z.string().min(1)
const flags = (of: string) =>
  z
    .array(z.string())
    .default([])
    .meta({ value: 'FLAG', verbatim: true, description: `flag for ${of} (repeatable)` })
const podman = flags('podman itself, such as --root=DIR')

export const RunOptions = z.strictObject({
  image: name.meta({ positional: true, description: 'image to run' }),
  args: z.array(z.string()).default([]).meta({ positional: true, description: 'command in it; flags after -- are its own' }),
  name: name.optional().meta({ description: 'name of the container (default: the job id)' }),
  create: flags('podman create, such as --network=host'),
  podman,
})
export const ResolveOptions = z.strictObject({
  container: name.meta({ positional: true, description: 'name or id of the container' }),
  podman,
})
export const QueryOptions = z.strictObject({ podman })

export const plugin = defineRuntime({
  name: 'podman',
  summary: 'containers of Podman that are run by runc',
  verbs: stable(
    ...(['run', 'launch', 'resolve', 'upcoming', 'dump', 'save', 'restore', 'freeze', 'unfreeze', 'kill'] as const),
    ...(['remove', 'exitStatus', 'query'] as const),
  ),
  features: {},
  requires: [{ root: true }, { criu: '>=3.16' }, { binary: 'podman', version: '>=4.0' }, { binary: 'runc', version: '>=1.1' }],
  options: { run: RunOptions, resolve: ResolveOptions, dump: NoOptions, restore: NoOptions, query: QueryOptions },
  load: async () => (await import('./runtime.js')).runtime,
})

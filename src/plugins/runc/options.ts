import { z } from 'zod'

const id = z
  .string()
  .min(1, 'missing id')
  .regex(/^[\w+.-]+$/, 'invalid container id')
const path = z.string().refine((value) => value === '' || value.startsWith('/'), 'must be an absolute path')

/** What says which container is meant. */
const ROOT = {
  short: 'r',
  value: 'DIR',
  path: true,
  description: 'state directory of the runtime (default: /run/runc, /run/crun for crun)',
}
const RUNTIME = { value: 'NAME', description: 'the runtime, runc or crun, by name or path' }
const common = {
  root: path.default('').meta(ROOT),
  runtime: z.string().min(1).default('runc').meta(RUNTIME),
}
const bundle = path
  .default('')
  .meta({ short: 'b', value: 'DIR', path: true, description: 'bundle of the container (default: the current directory)' })
const managedBundle = path
  .default('')
  .meta({ short: 'b', value: 'DIR', path: true, description: 'bundle of the container (default: the one it was made from)' })

/** What run and restore hand on to the runtime. */
const creation = {
  detach: z.boolean().default(false).meta({ short: 'd', description: 'with --no-server: leave the container running and end' }),
  noPivot: z.boolean().default(false).meta({ description: 'no pivot_root: for a root file system on a ramdisk' }),
  noNewKeyring: z.boolean().default(false).meta({ description: 'no session keyring of its own' }),
  consoleSocket: path.default('').meta({ value: 'PATH', path: true, description: 'with --no-server: socket that gets the terminal' }),
  log: path.default('').meta({ value: 'FILE', path: true, description: 'log of the runtime' }),
  logFormat: z.enum(['text', 'json']).default('text').meta({ description: 'format of that log' }),
  rootless: z.enum(['auto', 'true', 'false']).default('auto').meta({ description: 'whether cgroups are beyond its rights' }),
  systemdCgroup: z.boolean().default(false).meta({ description: 'cgroups by systemd' }),
  noSubreaper: z.boolean().default(false).meta({ description: 'with --no-server: do not adopt orphans of the container' }),
}

export const RunOptions = z.strictObject({
  id: id.optional().meta({ positional: true, description: 'container id (default: the job id)' }),
  bundle,
  ...common,
  ...creation,
  preserveFds: z
    .int()
    .nonnegative()
    .max(6)
    .default(0)
    .meta({ description: 'with --no-server: hand on as many descriptors after 2, at most 6' }),
})

export const ResolveOptions = z.strictObject({
  id: id.meta({ positional: true, description: 'container id' }),
  ...common,
  bundle: managedBundle,
})

export const RestoreOptions = z.strictObject({
  id: id.optional().meta({ short: 'i', description: 'id of the restored container (default: the one it had)' }),
  bundle: managedBundle,
  root: path.optional().meta(ROOT),
  runtime: z.string().min(1).optional().meta(RUNTIME),
  ...creation,
  netnsEth0Ipv4Addr: z.ipv4().optional().meta({ value: 'ADDRESS', description: 'IPv4 address for eth0 in the network namespace' }),
})

export const QueryOptions = z.strictObject({
  id: z.array(id).default([]).meta({ description: 'only these containers (repeatable)' }),
  ...common,
})

export type Creation = z.output<typeof RestoreOptions>

import { z } from 'zod'

const id = z
  .string()
  .min(1, 'missing id')
  .max(76, 'container id too long')
  .regex(/^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$/, 'invalid container id')
const path = z.string().refine((value) => value.startsWith('/'), 'must be an absolute path')
const environment = z.string().regex(/^[^=]+=/, 'not of the form NAME=VALUE')

const place = {
  address: path
    .default('/run/containerd/containerd.sock')
    .meta({ value: 'PATH', path: true, variable: 'CONTAINERD_ADDRESS', description: 'socket of containerd' }),
  namespace: z
    .string()
    .min(1)
    .default('default')
    .meta({ value: 'NAME', variable: 'CONTAINERD_NAMESPACE', description: 'namespace of containerd' }),
}

/** What run and restore share. */
const creation = {
  noPivot: z.boolean().default(false).meta({ description: 'no pivot_root: for a root file system on a ramdisk' }),
  env: z
    .array(environment)
    .default([])
    .meta({ value: 'NAME=VALUE', verbatim: true, description: 'variable of its environment (repeatable)' }),
}

export const RunOptions = z.strictObject({
  image: z
    .string()
    .min(1, 'missing image')
    .meta({ positional: true, sample: 'docker.io/library/nginx:latest', description: 'image, or directory with a root file system' }),
  args: z.array(z.string()).default([]).meta({ positional: true, description: 'command and its arguments, after --' }),
  id: id.optional().meta({ description: 'container id (default: the job id)' }),
  ...place,
  ...creation,
  gpus: z
    .array(z.string().regex(/^(\d+|all|[\w.-]+\/[\w.-]+=[\w.:-]+)$/, 'not an index, all, or VENDOR/CLASS=NAME'))
    .default([])
    .meta({ value: 'GPU', description: 'GPUs for it: by index, all, or any device by its CDI name, VENDOR/CLASS=NAME (repeatable)' }),
  snapshotter: z.string().min(1).default('overlayfs').meta({ value: 'NAME', description: 'snapshotter for its root file system' }),
})

export const RestoreOptions = z.strictObject({
  id: id.optional().meta({ description: 'id of the restored container (default: the one it had)' }),
  image: z.string().min(1).optional().meta({ description: 'image under it (default: the one it was made of)' }),
  address: place.address
    .unwrap()
    .optional()
    .meta({ ...place.address.meta(), otherwise: 'the one it was dumped from' }),
  namespace: place.namespace
    .unwrap()
    .optional()
    .meta({ ...place.namespace.meta(), otherwise: 'the one it was dumped from' }),
  ...creation,
})

export const ResolveOptions = z.strictObject({
  id: id.meta({ positional: true, description: 'container id' }),
  ...place,
})

export const DumpOptions = z
  .strictObject({
    rootfs: z.boolean().default(false).meta({ description: 'also its writable layer' }),
    rootfsOnly: z.boolean().default(false).meta({ description: 'its writable layer alone: its processes run on' }),
    image: z.string().min(1).optional().meta({ value: 'NAME', description: 'also make an image of it, with its writable layer' }),
  })
  .refine(({ rootfs, rootfsOnly }) => !(rootfs && rootfsOnly), '--rootfs and --rootfs-only exclude each other')
  .refine(({ image, rootfs, rootfsOnly }) => image === undefined || rootfs || rootfsOnly, '--image needs --rootfs or --rootfs-only')

export const QueryOptions = z.strictObject({
  id: z.array(id).default([]).meta({ positional: true, description: 'only these containers' }),
  ...place,
})

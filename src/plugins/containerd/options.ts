import { z } from 'zod'

const id = z
  .string()
  .min(1, 'missing id')
  .max(76)
  .regex(/^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$/, 'invalid container id')
const path = z.string().refine((value) => value.startsWith('/'), 'must be an absolute path')

const ADDRESS = { value: 'PATH', path: true, variable: 'CONTAINERD_ADDRESS', description: 'socket of containerd' }
const NAMESPACE = { value: 'NAME', variable: 'CONTAINERD_NAMESPACE', description: 'namespace of containerd' }
const place = {
  address: path.default('/run/containerd/containerd.sock').meta(ADDRESS),
  namespace: z.string().min(1).default('default').meta(NAMESPACE),
}

export const ResolveOptions = z.strictObject({
  id: id.meta({ positional: true, description: 'container id' }),
  ...place,
})

export const QueryOptions = z.strictObject({
  id: z.array(id).default([]).meta({ positional: true, description: 'only these containers' }),
  ...place,
})

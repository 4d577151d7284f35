import { z } from 'zod'

const id = z
  .string()
  .min(1, 'missing id')
  .regex(/^[\w.-]+$/, 'invalid container id')

const place = {
  address: z
    .string()
    .regex(/^(unix:\/\/)?\//, 'must be an absolute path')
    .default('/run/containerd/containerd.sock')
    .meta({ value: 'PATH', path: true, variable: 'CONTAINER_RUNTIME_ENDPOINT', description: 'CRI socket of the container runtime' }),
}

export const ResolveOptions = z.strictObject({
  id: id.meta({ positional: true, description: 'container id (see: cedana query k8s)' }),
  ...place,
})

export const DumpOptions = z.strictObject({
  rootfs: z.boolean().default(false).meta({ description: 'also its writable layer' }),
})
export type DumpOptions = z.output<typeof DumpOptions>

export const QueryOptions = z.strictObject({
  id: z.array(id).default([]).meta({ positional: true, description: 'only containers of these ids, or of pods of these ids or names' }),
  ...place,
  namespace: z.string().default('').meta({ value: 'NAME', description: 'namespace of Kubernetes (default: all)' }),
  containerType: z
    .enum(['container', 'sandbox'])
    .default('container')
    .meta({ description: 'containers of pods, or the sandboxes that hold their namespaces' }),
})

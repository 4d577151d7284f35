/** What the container runtime of a node says of a container. */
import { z } from 'zod'
import { CedanaError } from '../contract/errors.js'
import type { Host } from '../contract/host.js'
import type { Target } from '../contract/job.js'
import type { ParsedOptions } from '../contract/options.js'
import { Cri, socketPath } from './client.js'
import { ContainerState, type ContainerStatus, RuntimeServiceService as service } from './gen/cri.js'
import { ResolveOptions } from './options.js'

/** The verbose part of a status, as far as it is the same of every runtime. */
const Info = z.object({ pid: z.int().default(0) })

interface Found {
  readonly status: ContainerStatus
  readonly info: z.output<typeof Info>
}

export async function lookAt(host: Host, options: ParsedOptions): Promise<Found> {
  const { id, address } = ResolveOptions.parse(options)
  using cri = new Cri(host, address)
  const { status, info } = await cri.call(service.containerStatus, { containerId: id, verbose: true }).catch((thrown: unknown) => {
    const error = CedanaError.from(thrown)
    if (error.code !== 'NO_SUCH_CONTAINER') throw error
    throw new CedanaError('NO_SUCH_CONTAINER', `container ${id} does not exist`, { cause: error, hint: 'see: cedana query k8s' })
  })
  if (!status) throw new CedanaError('HOST_UNFIT', `the container runtime says nothing of container ${id}`)
  return { status, info: Info.parse(JSON.parse(info['info'] ?? '{}')) }
}

/** Its first process. Throws NO_SUCH_CONTAINER when none runs. */
export async function resolve(host: Host, options: ParsedOptions): Promise<Target> {
  const { status, info } = await lookAt(host, options)
  if (status.state === ContainerState.CONTAINER_RUNNING && info.pid > 0) return host.identify(info.pid)
  throw new CedanaError('NO_SUCH_CONTAINER', `container ${status.id} does not run`, { hint: 'see: cedana query k8s' })
}

/** Where containerd keeps what a kubelet started. */
const NAMESPACE = 'k8s.io'

/** How the containerd plugin names the same container. */
export function containerdIdentity(options: ParsedOptions): ParsedOptions {
  const { id, address } = ResolveOptions.parse(options)
  return { id, address: socketPath(address), namespace: NAMESPACE }
}

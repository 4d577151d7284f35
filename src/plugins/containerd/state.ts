/** What containerd knows of a container, and the process behind it. */
import { CedanaError } from '../contract/errors.js'
import type { Host } from '../contract/host.js'
import type { Target } from '../contract/job.js'
import type { ParsedOptions } from '../contract/options.js'
import { Containerd, found, type Place } from './client.js'
import { type Container, ContainersService } from './gen/containers.js'
import { Options } from './gen/runc-options.js'
import { type Process, Status } from './gen/task.js'
import { TasksService } from './gen/tasks.js'
import { ResolveOptions } from './options.js'

/** Which container: what a job of type containerd remembers. */
export interface Identity extends Place {
  readonly id: string
}

export function identityOf(options: ParsedOptions): Identity {
  const { id, address, namespace } = ResolveOptions.parse(options)
  return { id, address, namespace }
}

/** A connection for one verb, which ends with it. */
export const connect = (host: Host, place: Place): Containerd => new Containerd(place, host.signal)

export const findContainer = async (containerd: Containerd, id: string): Promise<Container | undefined> =>
  (await found(containerd.call(ContainersService.get, { id })))?.container

export const findTask = async (containerd: Containerd, id: string): Promise<Process | undefined> =>
  (await found(containerd.call(TasksService.get, { containerId: id })))?.process

const RUNC_OPTIONS = 'containerd.runc.v1.Options'
/** The runtime of containers that are made here. */
export const RUNC = { name: 'io.containerd.runc.v2', defaults: Options.decode(new Uint8Array()) }
/** Of the runtimes that are a runc behind containerd's own shim; undefined of any other. */
export function runcOptions({ runtime }: Container): Options | undefined {
  const isRunc = runtime?.name === 'io.containerd.runc.v2' || runtime?.name === 'io.containerd.runc.v1'
  if (!isRunc) return undefined
  const { options } = runtime
  return Options.decode(options?.typeUrl.endsWith(RUNC_OPTIONS) === true ? options.value : new Uint8Array())
}

export const encodeRuncOptions = (options: Options): { readonly typeUrl: string; readonly value: Buffer } => ({
  typeUrl: RUNC_OPTIONS,
  value: Buffer.from(Options.encode(options).finish()),
})

const DEFAULT_RUNC_ROOT = '/run/containerd/runc'
/** How the runc plugin names the same container: the one whose shim keeps its state there. */
export function runcIdentity({ id, namespace }: Identity, container: Container): ParsedOptions {
  const options = runcOptions(container)
  if (options === undefined) {
    throw new CedanaError('TARGET_UNFIT', `container ${id} is run by ${container.runtime?.name ?? 'an unknown runtime'}`, {
      hint: 'containers of runc or crun (io.containerd.runc.v2) can be dumped and restored',
    })
  }
  return runcName({ id, namespace }, options)
}

export const runcName = ({ id, namespace }: Pick<Identity, 'id' | 'namespace'>, options: Options = RUNC.defaults) => ({
  id,
  root: `${options.root || DEFAULT_RUNC_ROOT}/${namespace}`,
  runtime: options.binaryName || 'runc',
})

export const missing = ({ id, namespace }: Identity): CedanaError =>
  new CedanaError('NO_SUCH_CONTAINER', `container ${id} does not exist in namespace ${namespace}`, {
    hint: 'see: cedana query containerd, and --namespace',
  })

export const isLive = (task: Process | undefined): task is Process =>
  task !== undefined && task.pid > 0 && [Status.RUNNING, Status.PAUSED, Status.PAUSING].includes(task.status)

/** The first process of its task. Throws NO_SUCH_CONTAINER when none runs. */
export async function resolve(host: Host, options: ParsedOptions): Promise<Target> {
  const identity = identityOf(options)
  using containerd = connect(host, identity)
  const task = await findTask(containerd, identity.id)
  if (isLive(task)) return await host.identify(task.pid)
  if (!(await findContainer(containerd, identity.id))) throw missing(identity)
  throw new CedanaError('NO_SUCH_CONTAINER', `container ${identity.id} does not run`, {
    hint: `start it with: ctr --namespace ${identity.namespace} tasks start ${identity.id}`,
  })
}

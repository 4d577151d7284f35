/** What runc and crun keep about a container, in the words of the OCI runtime specification. */
import { CedanaError } from '../contract/errors.js'
import type { Host } from '../contract/host.js'
import type { Target } from '../contract/job.js'
import { absoluteIn, isBind } from '../contract/kit.js'
import { ResolveOptions } from './options.js'
import { type Namespace, readSpec, type Spec } from './spec.js'

/** Which container: what a job of type runc remembers. */
export interface Identity {
  readonly id: string
  /** Absolute. */
  readonly root: string
  /** Name or path of the program. */
  readonly runtime: string
  /** Empty: the one that the state names. */
  readonly bundle: string
}

/** The first process of a container. */
export interface Init {
  readonly pid: number
  /** As in /proc/PID/stat. */
  readonly startTicks: string
}

export interface ContainerState extends Init {
  readonly bundle: string
  /** Absolute. */
  readonly rootfs: string
  /** RFC 3339. */
  readonly created: string
  /** Where things of the outside are mounted, in the container. */
  readonly binds: readonly string[]
  readonly maskedPaths: readonly string[]
  readonly namespaces: readonly Namespace[]
  /** Directories of its cgroups, as far as the runtime says; crun does not. */
  readonly cgroups: readonly string[]
  /** Its cgroup was made by systemd. */
  readonly systemdCgroup: boolean
}

/** crun's name for a program of any path: it keeps its state in another form. */
export const isCrun = (runtime: string): boolean => /(^|\/)crun[^/]*$/.test(runtime)

export function identityOf(options: { readonly [name: string]: unknown }): Identity {
  const { id, root, runtime, bundle } = ResolveOptions.parse(options)
  return { id, runtime, bundle, root: root || (isCrun(runtime) ? '/run/crun' : '/run/runc') }
}

/** The runtime's own record of the container: written whole, by renaming, when the container has been created. */
export const stateFile = ({ root, id, runtime }: Identity): string => `${root}/${id}/${isCrun(runtime) ? 'status' : 'state.json'}`

/** The configuration that the container was made with. */
export const specFile = ({ root, id, runtime }: Identity, { bundle }: Pick<ContainerState, 'bundle'>): string =>
  `${isCrun(runtime) ? `${root}/${id}` : bundle}/config.json`

interface RuncState {
  readonly init_process_pid: number
  readonly init_process_start: number
  readonly cgroup_paths: Readonly<Record<string, string>> | null
  readonly created: string
  readonly config: {
    readonly rootfs: string
    readonly mounts: readonly { readonly destination: string; readonly device: string }[] | null
    readonly mask_paths: readonly string[] | null
    readonly namespaces: readonly { readonly type: string; readonly path: string }[] | null
    readonly labels: readonly string[] | null
    readonly cgroups: { readonly Systemd?: boolean } | null
  }
}
interface CrunStatus {
  readonly pid: number
  readonly 'process-start-time': number
  readonly rootfs: string
  readonly bundle: string
  readonly created: string
  readonly 'systemd-cgroup': boolean
}

const RUNC_NAMESPACES: Readonly<Record<string, string>> = {
  NEWNET: 'network',
  NEWPID: 'pid',
  NEWIPC: 'ipc',
  NEWUTS: 'uts',
  NEWNS: 'mount',
  NEWUSER: 'user',
  NEWCGROUP: 'cgroup',
  NEWTIME: 'time',
}

const initOfRunc = (state: RuncState): Init => ({ pid: state.init_process_pid, startTicks: String(state.init_process_start) })
const initOfCrun = (status: CrunStatus): Init => ({ pid: status.pid, startTicks: String(status['process-start-time']) })

function fromRunc(state: RuncState): ContainerState {
  const { config } = state
  const label = (config.labels ?? []).find((one) => one.startsWith('bundle='))
  return {
    ...initOfRunc(state),
    bundle: label?.slice('bundle='.length) ?? '',
    rootfs: config.rootfs,
    created: state.created,
    binds: (config.mounts ?? []).filter(({ device }) => device === 'bind').map(({ destination }) => destination),
    maskedPaths: config.mask_paths ?? [],
    namespaces: (config.namespaces ?? []).map(({ type, path }) => ({ type: RUNC_NAMESPACES[type] ?? type, path })),
    cgroups: Object.values(state.cgroup_paths ?? {}),
    systemdCgroup: config.cgroups?.Systemd ?? false,
  }
}

function fromCrun(status: CrunStatus, spec: Spec): ContainerState {
  const { rootfs, bundle, created } = status
  return {
    ...initOfCrun(status),
    bundle,
    created,
    rootfs: absoluteIn(bundle, rootfs),
    binds: spec.mounts.filter(isBind).map(({ destination }) => destination),
    maskedPaths: spec.linux?.maskedPaths ?? [],
    namespaces: (spec.linux?.namespaces ?? []).map(({ type, path }) => ({ type, path: path ?? '' })),
    cgroups: [],
    systemdCgroup: status['systemd-cgroup'],
  }
}

const unreadable = (identity: Identity, cause: unknown): CedanaError =>
  new CedanaError('HOST_UNFIT', `cannot read the state of container ${identity.id} in ${stateFile(identity)}`, {
    cause,
    hint: `name its runtime with --runtime (now ${identity.runtime})`,
  })

/** Undefined when the runtime knows no such container, or has only begun to make it. */
export async function findState(host: Host, identity: Identity): Promise<ContainerState | undefined> {
  const text = await host.readText(stateFile(identity))
  if (text === undefined) return undefined
  try {
    if (!isCrun(identity.runtime)) return fromRunc(JSON.parse(text) as RuncState)
    return fromCrun(JSON.parse(text) as CrunStatus, await readSpec(host, `${identity.root}/${identity.id}`))
  } catch (cause) {
    throw unreadable(identity, cause)
  }
}

/** As `findState`, and reads no more than it takes to know its init: the rest may be on its way out already. */
export async function findInit(host: Host, identity: Identity): Promise<Init | undefined> {
  const text = await host.readText(stateFile(identity))
  if (text === undefined) return undefined
  try {
    return isCrun(identity.runtime) ? initOfCrun(JSON.parse(text) as CrunStatus) : initOfRunc(JSON.parse(text) as RuncState)
  } catch (cause) {
    throw unreadable(identity, cause)
  }
}

export const missing = ({ id, root }: Identity): CedanaError =>
  new CedanaError('NO_SUCH_CONTAINER', `container with ID ${id} does not exist in ${root}`, {
    hint: 'see: cedana query runc, and --root',
  })

/** Its live init. Throws NO_SUCH_CONTAINER when there is none. */
export async function liveInit(host: Host, identity: Identity): Promise<Target> {
  const state = await findState(host, identity)
  if (!state) throw missing(identity)
  const target = await initOf(host, state)
  if (target) return target
  throw new CedanaError('NO_SUCH_CONTAINER', `container ${identity.id} is stopped`, {
    hint: `remove it with: ${identity.runtime} delete ${identity.id}`,
  })
}

/** Undefined when it has died, be it reaped or not. */
export async function initOf(host: Host, state: Init): Promise<Target | undefined> {
  if (state.pid <= 0) return undefined
  const stat = await host.readText(`/proc/${state.pid}/stat`)
  if (stat === undefined || /[ZX]/.test(stat.charAt(stat.lastIndexOf(')') + 2))) return undefined
  const target = await host.identify(state.pid).catch(() => undefined)
  return target?.startTicks === state.startTicks ? target : undefined
}

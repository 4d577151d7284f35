/**
 * The contract of a GPU plugin. CRIU knows nothing of devices, so their state is taken out of the way first: work on them is stopped, and their memory
 * becomes memory of the processes, which is dumped like any other. Which processes, in which order and by which calls is the plugin's to know; when,
 * and that all is undone, is the daemon's.
 */
import type { Requirement, Support } from './capability.js'
import type { Host } from './host.js'
import type { Snapshot, Target } from './job.js'
import type { Problem } from './plan.js'

export interface GpuProcess {
  readonly target: Target
  /** Its memory on devices; 0 when nobody knows. */
  readonly deviceBytes: number
}

/** What a tree has on GPUs. */
export interface GpuUse {
  /** Parents first; none: nothing is to be done. */
  readonly processes: readonly GpuProcess[]
  readonly problems: readonly Problem[]
  /** For the checkpoint: what `match` wants to find again. Plain data, of the given version. */
  readonly saved: { readonly version: number; readonly data: unknown }
}

/** Which device takes the place of which, by the ids that the plugin gives them; empty: each its own. */
export type DeviceMap = readonly { readonly from: string; readonly to: string }[]

/** Whether this machine can take what a checkpoint has saved of its GPUs. */
export interface GpuMatch {
  readonly devices: DeviceMap
  readonly problems: readonly Problem[]
}

export interface GpuRow {
  readonly name: string
  readonly data: string
  readonly warnings: readonly string[]
  readonly errors: readonly string[]
}

export interface Gpu {
  /** Changes nothing. `isExpected`: the job was started with a GPU, so that the driver is asked even when nothing points to one. */
  find(host: Host, snapshot: Snapshot, isExpected: boolean): Promise<GpuUse>
  /** Stops work on devices, of all or, when it throws, of some of these processes. */
  lock(host: Host, processes: readonly GpuProcess[]): Promise<void>
  /** Takes what is on devices into the memory of the processes; thrown at, of some. They hold no device any more. */
  checkpoint(host: Host, processes: readonly GpuProcess[]): Promise<void>
  /** Throws what still stands in the way of CRIU after `checkpoint`: what began to use a device meanwhile. */
  mustBeGone(host: Host, snapshot: Snapshot): Promise<void>
  /**
   * Makes all of these processes run on their devices again, from whatever state each is in, last one first. Goes on after a failure, and tries again,
   * before it throws. Those that are gone are no failure. Does not end by `host.signal`.
   */
  release(host: Host, processes: readonly GpuProcess[], devices: DeviceMap): Promise<void>
  /** `chosen`: numbers of the devices of this machine in the order of those saved; empty: not said. Changes nothing. */
  match(host: Host, saved: { readonly version: number; readonly data: unknown }, chosen: readonly number[]): Promise<GpuMatch>
  /** Processes of a restored tree that wait for `release`. Throws when they are not those that were saved. */
  waiting(host: Host, snapshot: Snapshot, saved: { readonly version: number; readonly data: unknown }): Promise<readonly GpuProcess[]>
  /** What `checkpoint inspect` shows of each process, by PID. */
  contents(saved: {
    readonly version: number
    readonly data: unknown
  }): ReadonlyMap<number, { readonly device: string; readonly storedBytes: number }>
  /** Throws HOST_UNFIT when a job that is to use a GPU could not be dumped here. */
  mustBeUsable(host: Host): Promise<void>
  /** For `check`. */
  check(host: Host): Promise<readonly GpuRow[]>
}

/** From the configuration, section `gpu`. */
export interface GpuSettings {
  /** Paths of device files begin so. */
  readonly devicePrefix: string
  readonly lockTimeoutMs: number
}

export interface GpuManifest {
  readonly kind: 'gpu'
  readonly name: string
  readonly summary: string
  readonly support: Support
  readonly requires: readonly Requirement[]
  /** Lazy: listing plugins runs none of them. */
  load(settings: GpuSettings): Promise<Gpu>
}
export const defineGpu = (manifest: Omit<GpuManifest, 'kind'>): GpuManifest => Object.freeze({ kind: 'gpu', ...manifest })

/** What the plugin tells itself, from the plan to the launcher. */
import type { Identity } from './state.js'

interface Shared {
  readonly identity: Identity
  /** `none`: no streams at all; `own`: those of the launcher. */
  readonly streams: 'own' | 'none'
}

export interface RunRequest extends Shared {
  readonly action: 'run'
  /** One of the two: an image, or a directory of the host. */
  readonly image?: string
  readonly rootfs?: string
  readonly args: readonly string[]
  readonly env: readonly string[]
  readonly noPivot: boolean
  readonly snapshotter: string
  /** Its size; undefined: it gets none. */
  readonly terminal: { readonly rows: number; readonly columns: number } | undefined
}

export type LaunchRequest = RunRequest

/** What the plugin tells itself, from the plan to the launcher. */
import type { ContainerEdits } from './cdi.js'
import type { SavedContainer } from './saved.js'
import type { Spec } from './spec.js'
import type { Identity } from './state.js'

interface Shared {
  readonly identity: Identity
  /** Those of the launcher, none at all, or the URI of a logger of containerd's. */
  readonly streams: 'own' | 'none' | { readonly logUri: string }
  /** Its size; undefined: it gets none. */
  readonly terminal: { readonly rows: number; readonly columns: number } | undefined
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
  /** Of the devices it is to have. */
  readonly edits: ContainerEdits
}

export interface RestoreRequest extends Shared {
  readonly action: 'restore'
  readonly container: SavedContainer
  readonly spec: Spec
  /** It is made anew where it is not. */
  readonly isThere: boolean
  readonly noPivot: boolean
  /** Directories: CRIU's images, and where it works. */
  readonly images: string
  readonly work: string
  /** Of `runc restore`. */
  readonly flags: readonly string[]
  /** Else it begins anew. */
  readonly hasProcesses: boolean
  /** Path of its writable layer; undefined: as it is, or none. */
  readonly layer: string | undefined
}

export type LaunchRequest = RunRequest | RestoreRequest

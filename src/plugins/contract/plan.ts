/** Plans: data that says how. Pure to make, printable with --dry-run, carried out by the daemon alone. */
import type { Caller, IdSet, StdioMode } from './job.js'

/**
 * Options of one CRIU request: field names of `criu_opts` in CRIU's rpc.proto (snake_case).
 * 64-bit values as decimal text. Unknown names are refused by the daemon before CRIU is asked.
 */
export type CriuOptions = Readonly<Record<string, unknown>>

export const SEVERITIES = ['error', 'warning'] as const

/** Something known beforehand to go wrong (`error`: the operation is refused) or to be worth knowing (`warning`). */
export interface Problem {
  readonly severity: (typeof SEVERITIES)[number]
  /** Stable identifier, kebab-case: `io-uring`, `pid-in-use`, `file-changed`. */
  readonly id: string
  /** Lower case, names the thing. */
  readonly message: string
  readonly hint?: string
  readonly pid?: number
}

/** A small file that a plugin puts beside CRIU's images. Never page data. */
export interface Attachment {
  readonly name: string
  readonly content: Uint8Array
}

export interface DumpPlan {
  readonly criu: CriuOptions
  readonly attachments: readonly Attachment[]
  readonly problems: readonly Problem[]
}

/**
 * A descriptor that CRIU puts in place of one it finds in the images under `key`
 * (`pipe:[INODE]`, `tty[RDEV:DEV]`, `file[MOUNT:INODE]`, a path without its leading slash, `extRootNetNS` …).
 */
export interface Inherit {
  readonly key: string
  readonly from:
    | { readonly stdio: 'stdin' | 'stdout' | 'stderr' | 'log' | 'logCopy' | 'tty' }
    | { readonly path: string; /** open(2) flags */ readonly flags: number }
}

export interface RestorePlan {
  readonly criu: CriuOptions
  readonly inherit: readonly Inherit[]
  readonly problems: readonly Problem[]
}

/** A program to start as a job: the daemon starts it through the shim. */
export interface RunPlan {
  readonly argv: readonly [string, ...string[]]
  readonly environment: Readonly<Record<string, string>>
  readonly workingDirectory: string
  readonly user: Pick<Caller, 'uid' | 'gid' | 'groups'>
  readonly problems: readonly Problem[]
}

export type { IdSet, StdioMode }

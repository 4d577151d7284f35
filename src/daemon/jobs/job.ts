/** What the daemon keeps about jobs and checkpoints: plain records, as the database stores them. */
import type { ExitStatus, StdioMode } from '../../plugins/contract/job.js'
import type { ParsedOptions } from '../../plugins/contract/options.js'

/** `starting` and `restoring`: the job is written down, its process is not there yet. */
export const JOB_STATES = ['starting', 'running', 'restoring', 'ended'] as const
export type JobState = (typeof JOB_STATES)[number]

/** Why a job ended; `lost`: nobody saw it (the machine went down). Empty while it has not ended. */
export const END_REASONS = ['', 'exited', 'killed', 'dumped', 'lost'] as const
export type EndReason = (typeof END_REASONS)[number]

export interface JobRecord {
  readonly jid: string
  /** Runtime plugin. */
  readonly type: string
  /** Of the root process; with start time and boot id its identity. Kept after the end. */
  readonly pid: number
  readonly startTicks: string
  readonly bootId: string
  readonly hostId: string
  readonly state: JobState
  readonly endReason: EndReason
  /** Undefined while it runs, and when nobody could know. */
  readonly exit: ExitStatus | undefined
  readonly owner: { readonly uid: number; readonly gid: number; readonly groups: readonly number[] }
  readonly stdio: StdioMode
  /** Path of the log; empty when it has none. */
  readonly log: string
  readonly args: readonly string[]
  readonly workingDirectory: string
  /** Options of the plugin it was started or managed with. */
  readonly details: ParsedOptions
  readonly gpuEnabled: boolean
  readonly frozen: boolean
  /** The run directory of its shim; empty when it has none. */
  readonly directory: string
  /** Milliseconds since the epoch; 0: not yet. */
  readonly createdAt: number
  readonly startedAt: number
  readonly exitedAt: number
}

/** What a list of jobs is made of. */
export type JobBrief = Pick<
  JobRecord,
  'jid' | 'type' | 'pid' | 'startTicks' | 'bootId' | 'hostId' | 'state' | 'stdio' | 'log' | 'gpuEnabled' | 'frozen' | 'createdAt'
> & { readonly owner: { readonly uid: number } }

export interface CheckpointRecord {
  /** UUIDv4. */
  readonly id: string
  /** Empty for a checkpoint of no job. */
  readonly jid: string
  readonly type: string
  readonly path: string
  /** Milliseconds since the epoch. */
  readonly time: number
  readonly size: number
  readonly compression: string
  /** Digest of its manifest when it was sealed: whether the files at `path` still are this checkpoint. */
  readonly manifestDigest: string
}

/**
 * What the daemon can be asked: one method per verb, in domain types. The gRPC server and `--no-server` call the same object.
 * Field names equal those of api/cedana.proto, so the codec has little to do.
 */
import type { Caller, ExitStatus, StdioMode } from '../../plugins/contract/job.js'
import type { ParsedOptions } from '../../plugins/contract/options.js'
import type { Problem } from '../../plugins/contract/plan.js'
import type { QueryResult } from '../../plugins/contract/runtime.js'
import type { Origin } from '../../plugins/registry.js'

export interface Progress {
  readonly phase: string
  readonly bytes: number
  /** 0 when unknown. */
  readonly totalBytes: number
  readonly frozen: boolean
}

/** The call around a request: who, until when, and where progress goes. */
export interface Call {
  readonly caller: Caller
  readonly signal: AbortSignal
  readonly onProgress: (progress: Progress) => void
}

export interface Step {
  readonly name: string
  readonly category: string
  readonly durationNs: number
  readonly bytes: number
}
export interface WindowSize {
  readonly rows: number
  readonly columns: number
}

export interface RunRequest {
  readonly jid: string
  readonly type: string
  readonly options: ParsedOptions
  readonly environment: Readonly<Record<string, string>>
  readonly workingDirectory: string
  readonly stdio: StdioMode
  readonly waitAttach: boolean
  readonly log: string
  readonly pidFile: string
  readonly asRoot: boolean
  readonly gpuEnabled: boolean
  readonly windowSize: WindowSize | undefined
}
export interface Started {
  /** Empty when no job was made. */
  readonly jid: string
  readonly pid: number
  readonly messages: readonly string[]
  readonly steps: readonly Step[]
}
export interface ManageRequest {
  readonly jid: string
  readonly type: string
  readonly options: ParsedOptions
  readonly upcoming: boolean
  readonly pidFile: string
  readonly gpuEnabled: boolean
  readonly timeoutMs: number
}

/** CRIU switches a request may set; undefined: by configuration or detection. */
export interface CriuSwitches {
  readonly tcpEstablished: boolean | undefined
  readonly fileLocks: boolean | undefined
  readonly shellJob: boolean | undefined
  readonly linkRemap: boolean | undefined
  readonly external: readonly string[]
  /** JSON object of criu_opts fields, as text; empty for none. */
  readonly criuOpts: string
}
/** A job by id, or a runtime and the options that name its target. */
export interface TargetRequest {
  readonly jid: string
  readonly type: string
  readonly target: ParsedOptions
}
export interface DumpRequest extends TargetRequest, CriuSwitches {
  readonly options: ParsedOptions
  readonly dir: string
  readonly name: string
  readonly compression: string
  readonly level: number | undefined
  readonly streams: number
  /** How many checkpoints the job keeps; 0: all. */
  readonly keepLast: number | undefined
  readonly leaveRunning: boolean | undefined
  readonly skipInFlight: boolean | undefined
  readonly dryRun: boolean
  readonly timeoutMs: number
  /** The result has `state`, which takes longer to send than all the rest. */
  readonly withState: boolean
}
export interface DumpResult {
  readonly checkpointId: string
  readonly paths: readonly string[]
  readonly size: number
  readonly messages: readonly string[]
  readonly steps: readonly Step[]
  readonly problems: readonly Problem[]
  readonly state: object | undefined
  readonly plan: object | undefined
  readonly frozenUs: number
  /** What CRIU has counted, by its names. */
  readonly criuStatistics: Readonly<Record<string, number>>
}
export interface RestoreRequest extends CriuSwitches {
  readonly jid: string
  readonly type: string
  readonly path: string
  readonly options: ParsedOptions
  readonly stdio: StdioMode | undefined
  readonly waitAttach: boolean
  readonly log: string
  readonly pidFile: string
  readonly tcpClose: boolean | undefined
  readonly leaveStopped: boolean | undefined
  /** Numbers of devices of this machine, in the order of those of the checkpoint; empty: not said. */
  readonly gpus: readonly number[]
  readonly dryRun: boolean
  readonly timeoutMs: number
  readonly windowSize: WindowSize | undefined
  /** The result has `state`. */
  readonly withState: boolean
}
export interface RestoreResult extends Started {
  readonly problems: readonly Problem[]
  readonly state: object | undefined
  readonly plan: object | undefined
  readonly criuStatistics: Readonly<Record<string, number>>
}

export interface JobView {
  readonly jid: string
  readonly type: string
  readonly pid: number
  readonly status: string
  readonly isRunning: boolean
  readonly isFrozen: boolean
  readonly gpuEnabled: boolean
  readonly log: string
  readonly logPath: string
  readonly attachable: boolean
  readonly tty: boolean
  readonly uid: number
  readonly gid: number
  readonly createdAt: number
  readonly startedAt: number
  readonly exitedAt: number
  readonly exit: ExitStatus | undefined
  readonly endReason: string
  readonly latestCheckpoint: CheckpointView | undefined
  readonly checkpoints: number
  readonly args: readonly string[]
  readonly hostId: string
  readonly details: ParsedOptions
  readonly state: object | undefined
}
export interface CheckpointView {
  readonly id: string
  readonly jid: string
  readonly type: string
  readonly path: string
  readonly time: number
  readonly size: number
  readonly compression: string
  readonly exists: boolean
}
export interface ExportCheckpointRequest {
  readonly id: string
  /** Of the new archive. */
  readonly path: string
  readonly format: string
  /** Of an OCI archive: name of its image; empty: by the name of the container. */
  readonly image: string
}
export interface ListJobsRequest {
  /** Also jobs of other hosts. */
  readonly allHosts: boolean
  /** Empty: all. */
  readonly jids: readonly string[]
  /** Only what a table shows (see cedana.proto); the rest of a view is empty. */
  readonly brief: boolean
}
export interface KillRequest {
  readonly jids: readonly string[]
  readonly all: boolean
  readonly signal: number
  readonly graceMs: number
}
export interface CheckSection {
  readonly name: string
  readonly components: readonly {
    readonly name: string
    readonly data: string
    readonly warnings: readonly string[]
    readonly errors: readonly string[]
  }[]
}
export interface ListPluginsRequest {
  /** Also looks for what each plugin needs. */
  readonly needs: boolean
}
/** What a plugin needs of the machine. */
export interface Need {
  readonly name: string
  /** A range of versions; empty: any. */
  readonly wanted: string
  /** The version that is there, or what else there is to say of it. */
  readonly found: string
  /** Empty: it will do. */
  readonly problem: string
}
export interface PluginView {
  readonly kind: string
  readonly name: string
  readonly summary: string
  readonly origin: Origin
  readonly version: string
  readonly directory: string
  readonly sizeBytes: number
  /** Why it cannot be used; empty: it can. */
  readonly problem: string
  /** How well each is supported. */
  readonly verbs: Readonly<Record<string, string>>
  readonly features: Readonly<Record<string, string>>
  readonly needs: readonly Need[]
}
/** What became of a configuration that was read again: keys by dotted name. */
export interface Reloaded {
  readonly changed: readonly string[]
  readonly atNextStart: readonly string[]
}
/** What an attacher sends and gets; the streams of one attachment. */
export type AttachInput =
  { readonly kind: 'stdin'; readonly bytes: Uint8Array } | { readonly kind: 'eof' } | { readonly kind: 'window'; readonly size: WindowSize }
export type AttachOutput =
  | { readonly kind: 'tty'; readonly tty: boolean }
  | { readonly kind: 'stdout' | 'stderr'; readonly bytes: Uint8Array }
  | { readonly kind: 'exit'; readonly exit: ExitStatus }
export interface AttachRequest {
  /** One of the two. */
  readonly jid: string
  readonly pid: number
  readonly windowSize: WindowSize | undefined
}

export interface Verbs {
  run(call: Call, request: RunRequest): Promise<Started>
  manage(call: Call, request: ManageRequest): Promise<Started>
  dump(call: Call, request: DumpRequest): Promise<DumpResult>
  restore(call: Call, request: RestoreRequest): Promise<RestoreResult>
  freeze(call: Call, request: TargetRequest): Promise<{ readonly type: string; readonly pid: number }>
  unfreeze(call: Call, request: TargetRequest): Promise<{ readonly type: string; readonly pid: number }>
  attach(call: Call, request: AttachRequest, input: AsyncIterable<AttachInput>): AsyncIterable<AttachOutput>
  getJob(call: Call, jid: string): Promise<JobView>
  listJobs(call: Call, request: ListJobsRequest): Promise<readonly JobView[]>
  killJobs(call: Call, request: KillRequest): Promise<readonly string[]>
  deleteJobs(call: Call, request: { readonly jids: readonly string[]; readonly all: boolean }): Promise<readonly string[]>
  listCheckpoints(call: Call, jid: string): Promise<readonly CheckpointView[]>
  inspectCheckpoint(
    call: Call,
    id: string,
  ): Promise<{ readonly checkpoint: CheckpointView; readonly manifest: object; readonly contents: object }>
  verifyCheckpoint(call: Call, id: string): Promise<{ readonly files: number; readonly bytes: number; readonly path: string }>
  exportCheckpoint(call: Call, request: ExportCheckpointRequest): Promise<{ readonly path: string; readonly size: number }>
  deleteCheckpoint(call: Call, id: string): Promise<{ readonly path: string }>
  query(call: Call, request: { readonly type: string; readonly options: ParsedOptions }): Promise<QueryResult>
  check(call: Call, request: { readonly full: boolean }): Promise<readonly CheckSection[]>
  listPlugins(call: Call, request: ListPluginsRequest): Promise<readonly PluginView[]>
  /** Looks for plugins again; those that run operations finish them as they were. */
  reloadPlugins(call: Call): Promise<readonly PluginView[]>
  reload(call: Call): Promise<Reloaded & { readonly plugins: readonly PluginView[] }>
  version(): { readonly version: string; readonly criu: string; readonly kernel: string; readonly pid: number }
}

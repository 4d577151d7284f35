/** The contract of a runtime plugin: a frozen manifest (data) and, behind `load()`, the verbs it claims. */
import type { Requirement, Support } from './capability.js'
import type { Host } from './host.js'
import type { Caller, ExitStatus, Snapshot, StdioMode, Target } from './job.js'
import type { OptionSchemas, OptionsOf, ParsedOptions } from './options.js'
import type { DumpPlan, RestorePlan, RunPlan } from './plan.js'

/** The request around a `run`: who asks, from where, with which environment. */
export interface RunContext {
  readonly caller: Caller
  readonly environment: Readonly<Record<string, string>>
  readonly workingDirectory: string
  readonly jid: string
  /** The private directory that the job is going to have. */
  readonly directory: string
  /** Of the caller's terminal. */
  readonly windowSize: { readonly rows: number; readonly columns: number } | undefined
  /** Standard streams that it is to have; `inherit`: it is to stay in the foreground of the caller, without a daemon. */
  readonly stdio: StdioMode
}

/** What is stored in a checkpoint, as a plugin sees it at restore. */
export interface RestoreContext {
  readonly snapshot: Snapshot
  /** Inode of the mount namespace that the daemon itself is in. */
  readonly mountNamespace: string
  /** Standard streams when it was dumped, and what they become now. */
  readonly stdio: { readonly then: StdioMode; readonly now: StdioMode }
  /** Path of the log at the dump, when it was the job's standard output. */
  readonly log: string | undefined
  readonly caller: Caller
  readonly jid: string
  /** The private directory that the job is going to have. */
  readonly directory: string
  /** Path of the directory that holds CRIU's images, for as long as the restore takes. */
  readonly images: string
  /** Where a program that has CRIU restore lets it work and leave its log, `restore.log`; there by then. */
  readonly work: string
  /** The options of `resolve` that named the target when it was dumped. */
  readonly identity: ParsedOptions
  /** What the checkpoint was made with, and the request wants. */
  readonly switches: RestoreSwitches
  attachment(name: string): Promise<Uint8Array | undefined>
}

export interface RestoreSwitches {
  readonly tcpEstablished: boolean
  readonly extUnixSockets: boolean
  readonly fileLocks: boolean
  readonly shellJob: boolean
}

/** The switches as `runc restore` (and crun's) is told them: what it decides itself counts more than CRIU's configuration file. */
export const runcRestoreFlags = ({ tcpEstablished, extUnixSockets, fileLocks }: RestoreSwitches): readonly string[] => [
  ...(tcpEstablished ? ['--tcp-established'] : []),
  ...(extUnixSockets ? ['--ext-unix-sk'] : []),
  ...(fileLocks ? ['--file-locks'] : []),
]

export interface DumpContext {
  readonly snapshot: Snapshot
  /** Inodes of the namespaces that the daemon itself is in. */
  readonly mountNamespace: string
  readonly userNamespace: string
  readonly cgroupNamespace: string
  readonly stdio: StdioMode
  /** The options of `resolve` that name the target. */
  readonly identity: ParsedOptions
}

/** What a plugin that is its own launcher works with. */
export interface LaunchContext {
  /** Of the launcher: a process whose standard streams are the job's. */
  readonly pid: number
  readonly environment: Readonly<Record<string, string>>
  /** Names the target. Once it resolves its end will be known, however soon that is; until then the target should not run. */
  announce(target: Pick<Target, 'pid' | 'startTicks'>): Promise<void>
  /** A file of a checkpoint that is being restored, in parts. */
  read(path: string): AsyncIterable<Uint8Array>
  /** Makes a file, or replaces one. */
  writeFile(path: string, text: string): Promise<void>
  /** Makes a program, or replaces one. */
  writeProgram(path: string, text: string): Promise<void>
}

/** Where a plugin puts what is not in the processes of a target. */
export interface SaveContext {
  /** The options of `resolve` that name the target. */
  readonly identity: ParsedOptions
  /** Path of the directory of the checkpoint that is being made: every file in it becomes part of it. */
  readonly directory: string
  /** Whether the target stands still already; if not, it is for the plugin to stop it. */
  readonly isStopped: boolean
}

/** A row of `query`: `cells` by column name, `state` for --inspect. */
export interface QueryRow {
  readonly cells: Readonly<Record<string, string>>
  readonly state: unknown
}
export interface QueryResult {
  readonly columns: readonly string[]
  readonly rows: readonly QueryRow[]
  readonly messages: readonly string[]
}

/**
 * - `ended`: it ended by itself or was killed, or its job is deleted.
 * - `dumped`: a restore may build on what stays; at the latest when its job is deleted it is removed again.
 * - `undone`: the run or restore that made it has failed.
 */
export type RemoveReason = 'ended' | 'dumped' | 'undone'

export interface RuntimeVerbs<O extends OptionSchemas> {
  /** How to start it. Pure but for look-ups. */
  run(host: Host, context: RunContext, options: OptionsOf<O, 'run'>): Promise<RunPlan>
  /** The live target that the options of a verb name: for manage, dump, freeze, unfreeze. */
  resolve(host: Host, options: OptionsOf<O, 'resolve'>): Promise<Target>
  /** Waits for a target that does not exist yet. Ends by `host.signal`. */
  upcoming(host: Host, options: OptionsOf<O, 'resolve'>): Promise<Target>
  /** Pure: the same context gives the same plan. */
  dump(host: Host, context: DumpContext, options: OptionsOf<O, 'dump'>): Promise<DumpPlan>
  /** See `DumpPlan.save`. Answers how to take back what it made elsewhere, should the dump fail after all. */
  save(host: Host, context: SaveContext, options: OptionsOf<O, 'dump'>): Promise<() => Promise<void>>
  restore(host: Host, context: RestoreContext, options: OptionsOf<O, 'restore'>): Promise<RestorePlan>
  freeze(host: Host, target: Target, identity: ParsedOptions): Promise<void>
  unfreeze(host: Host, target: Target, identity: ParsedOptions): Promise<void>
  /** Ends the target its own way; without this verb the daemon signals the root process. */
  kill(host: Host, target: Target, signal: number, identity: ParsedOptions): Promise<void>
  /**
   * Removes what the runtime keeps about an ended target, unless another has that name by now. Without a target: `undone`, the start was broken off, so
   * that whatever has that name, alive or dead, is its doing; else a program that was to make it, or stayed with it, has ended by itself and may have
   * missed something. Called twice it does no harm.
   */
  remove(host: Host, target: Target | undefined, identity: ParsedOptions, why: RemoveReason): Promise<void>
  /** How a target ended that is not our child, as far as the runtime remembers. Called once it has ended, before `remove`. */
  exitStatus(host: Host, target: Target, identity: ParsedOptions): Promise<ExitStatus | undefined>
  /** The terminal of the target, where that is not the one that its job has, gets another size. */
  resize(host: Host, target: Target, size: { readonly rows: number; readonly columns: number }, identity: ParsedOptions): Promise<void>
  /** See `Program.launch`. Ends when the target runs; when it fails, or `host.signal` is aborted, nothing of it is left. */
  launch(host: Host, context: LaunchContext, request: ParsedOptions): Promise<void>
  query(host: Host, options: OptionsOf<O, 'query'>): Promise<QueryResult>
}
export type Verb = keyof RuntimeVerbs<OptionSchemas>
/** Every verb, and what the feature matrix calls it. */
export const VERBS: Readonly<Record<Verb, string>> = {
  run: 'Run',
  resolve: 'Manage',
  upcoming: 'Manage --upcoming',
  dump: 'Dump',
  restore: 'Restore',
  freeze: 'Freeze',
  unfreeze: 'Unfreeze',
  query: 'Query',
  kill: 'Own way to kill',
  remove: 'Own clean-up',
  exitStatus: 'Own exit status',
  resize: 'Own terminal',
  launch: 'Own launcher',
  save: 'More than processes',
}
export type VerbSupport = Readonly<Partial<Record<Verb, Support>>>

/** Exactly the verbs claimed: claim one without writing it and this does not compile. (Of any plugin: some verbs.) */
export type Runtime<O extends OptionSchemas, S extends VerbSupport> = VerbSupport extends S
  ? Partial<RuntimeVerbs<O>>
  : Pick<RuntimeVerbs<O>, keyof S & Verb>

/** Names of plugins. */
export const PLUGIN_NAME = /^[a-z][a-z0-9-]{0,62}$/

export type Feature = 'stream' | 'gpu' | 'rootfs' | 'tcp-established'
/** Every feature, and what the feature matrix calls it. */
export const FEATURES: Readonly<Record<Feature, string>> = {
  'tcp-established': 'Established TCP connections',
  stream: 'Parallel streams',
  rootfs: 'Root file system',
  gpu: 'GPU',
}

export interface RuntimeManifest<O extends OptionSchemas = OptionSchemas, S extends VerbSupport = VerbSupport> {
  readonly kind: 'runtime'
  readonly name: string
  readonly summary: string
  readonly verbs: S
  /** What to do instead, of a verb that one may look for and that is not there. */
  readonly instead?: Readonly<Partial<Record<Verb, string>>> | undefined
  readonly features: Readonly<Partial<Record<Feature, Support>>>
  readonly requires: readonly Requirement[]
  /** By verb: `run`, `resolve` (arguments that name a live target), `dump`, `restore`, `query`. */
  readonly options: O
  /** Lazy: listing plugins runs none of them. */
  load(): Promise<Runtime<O, S>>
}

export const defineRuntime = <const O extends OptionSchemas, const S extends VerbSupport>(
  manifest: Omit<RuntimeManifest<O, S>, 'kind'>,
): RuntimeManifest<O, S> => Object.freeze({ kind: 'runtime', ...manifest })

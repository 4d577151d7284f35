/** What the operations work with, handed in once: with a daemon or without, only this differs. */
import { mkdirSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { CedanaError, reasonOf } from '../../plugins/contract/errors.js'
import type { Gpu } from '../../plugins/contract/gpu.js'
import type { Host, Log } from '../../plugins/contract/host.js'
import type { Target } from '../../plugins/contract/job.js'
import type { Problem } from '../../plugins/contract/plan.js'
import type { Registry } from '../../plugins/registry.js'
import type { Config } from '../config.js'
import type { CheckpointRecord } from '../jobs/job.js'
import type { CriuBinary } from '../host/criu.js'
import type { CudaChild } from '../host/cuda.js'
import type { HostFacts } from '../host/probe.js'
import { briefs } from '../host/processes.js'
import type { JobLocks } from '../jobs/lock.js'
import type { JobTable } from '../jobs/table.js'
import { hostFor } from './host.js'
import { type Faults, Operation } from './operation.js'
import type { Call, Reloaded } from './verbs.js'

/** The part of db/checkpoints.ts that operations use. */
export interface CheckpointStore {
  insert(record: CheckpointRecord): void
  get(id: string): CheckpointRecord | undefined
  /** Ids that begin so. */
  withPrefix(prefix: string): readonly CheckpointRecord[]
  /** Newest first; of all jobs for undefined. */
  ofJob(jid: string | undefined): readonly CheckpointRecord[]
  byPath(path: string): CheckpointRecord | undefined
  /** The newest of each job, and how many there are. */
  latestByJob(): ReadonlyMap<string, { readonly record: CheckpointRecord; readonly count: number }>
  remove(id: string): void
}

export interface Environment {
  /** As it was read last: what a daemon cannot change while it works is as it was at its start. */
  readonly config: Config
  readonly log: Log
  readonly version: string
  readonly runtimes: Registry
  /** Looks for external plugins again. */
  reloadPlugins(): Promise<void>
  /** Reads the configuration again, and looks for external plugins. Where it cannot be read, it stays as it was. */
  reload(): Promise<Reloaded>
  readonly jobs: JobTable
  readonly checkpoints: CheckpointStore
  readonly locks: JobLocks
  readonly faults: Faults | undefined
  /** Found and probed when it is first needed. */
  criu(): Promise<CriuBinary>
  facts(): Promise<HostFacts>
  /** Loaded when it is first needed. */
  gpu(): Promise<Gpu>
  readonly cuda: CudaChild
  /** This process, as the maker of checkpoints. */
  self(): Promise<Target>
  readonly shimPath: string
  /** The command line of the program that brings up the targets of plugins that do so themselves, but for its argument. */
  readonly launcher: readonly [string, ...string[]]
  /** $PATH, for CRIU's own helpers (iptables, ip). */
  readonly searchPath: string
  /** Standard streams of a job may be the caller's own: only without a daemon. */
  readonly foreground: boolean
}

export const jobsDirectory = (env: Environment): string => join(env.config.run_dir, 'jobs')
/** CRIU's logs of operations that failed. */
export const logsDirectory = (env: Environment): string => join(env.config.run_dir, 'logs')
/** What processes of cedana are working with: a directory for each, named for it, so that what a dead one left is known from what a living one needs. */
export const workDirectories = (env: Environment): string => join(env.config.run_dir, 'work')
export const makerName = ({ pid, startTicks }: Pick<Target, 'pid' | 'startTicks'>): string => `${pid}-${startTicks}`
/** Whether the process that a file or directory is named for is there. */
export async function hasMaker(name: string): Promise<boolean> {
  const [, pid, startTicks] = /(\d+)-(\d+)(?:-[0-9a-f]+)?(?:[.]new)?$/.exec(name) ?? []
  return pid !== undefined && (await briefs([Number(pid)])).get(Number(pid))?.startTicks === startTicks
}
/** This process' own: CRIU's work directories, and archives unpacked for a restore. */
export const workDirectory = async (env: Environment): Promise<string> => join(workDirectories(env), makerName(await env.self()))

export async function ensureDirectories(env: Environment): Promise<void> {
  for (const directory of [env.config.run_dir, jobsDirectory(env), logsDirectory(env), workDirectories(env), await workDirectory(env)]) {
    try {
      mkdirSync(directory, { recursive: true, mode: 0o700 })
    } catch (cause) {
      throw new CedanaError('HOST_UNFIT', `cannot make directory ${directory}: ${reasonOf(cause)}`, {
        cause,
        hint: 'set run_dir to a directory you may write to',
      })
    }
  }
}

/** What an archive or shards take while they are unpacked. */
export function unpackingLimits({ config }: Environment): { readonly memoryBytes: number; readonly spillDirectory: string } {
  const { dir, stream_memory_limit: megabytes } = config.checkpoint
  return { memoryBytes: megabytes * 10 ** 6, spillDirectory: dir.startsWith('/') ? dir : tmpdir() }
}

/** What packing images takes. */
export const packingLimits = ({ config }: Environment): { readonly memoryBytes: number; readonly threads: number } => ({
  memoryBytes: config.checkpoint.memory_limit_mb * 2 ** 20,
  threads: Math.min(availableParallelism(), MAX_THREADS),
})
const MAX_THREADS = 16

/** An operation for a call, with the host that its plugins are given. Ends by the caller's signal and by its own time limit. */
export function begin(
  env: Environment,
  name: string,
  call: Call,
  timeoutMs = 0,
): { readonly op: Operation; readonly host: Host; readonly signal: AbortSignal } {
  const timeout = new AbortController()
  if (timeoutMs > 0) {
    const error = new CedanaError('TIMEOUT', `${name} did not finish within ${timeoutMs / 1000} s`, {
      hint: 'everything was undone; try a longer --timeout',
    })
    setTimeout(() => {
      timeout.abort(error)
    }, timeoutMs).unref()
  }
  const signal = AbortSignal.any([call.signal, timeout.signal])
  const op = new Operation(name, { signal, log: env.log, onProgress: call.onProgress, faults: env.faults })
  return { op, host: hostFor(env, signal), signal }
}

/** What is worth knowing, and forbids nothing, in words for the reply. */
export const warnings = (problems: readonly Problem[]): string[] =>
  problems
    .filter(({ severity }) => severity === 'warning')
    .map(({ message, hint }) => `Warning: ${message}${hint === undefined ? '' : `: ${hint}`}`)

/** Reports of a plan that forbid going on become one error. */
export function refuseProblems(problems: readonly Problem[]): void {
  const errors = problems.filter((problem) => problem.severity === 'error')
  const [first] = errors
  if (!first) return
  const more = errors.length > 1 ? ` (and ${errors.length - 1} more: see --dry-run)` : ''
  throw new CedanaError('TARGET_UNFIT', first.message + more, {
    detail: { problems: errors },
    ...(first.hint === undefined ? {} : { hint: first.hint }),
  })
}

/** Everything a plugin may touch. The daemon supplies it; tests supply a fake. */
import type { CudaDriver } from './cuda.js'
import type { Snapshot, Target } from './job.js'

export interface Log {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
}

export interface ExecResult {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** What `ps` shows of a process. */
export interface ProcessBrief {
  readonly target: Target
  readonly name: string
  readonly args: readonly string[]
  /** Kernel state letter. */
  readonly state: string
}

/**
 * What wakes a wait for something that is not there yet. A wake-up says that something may have changed, not what: whoever waits says first what to be
 * woken by, then looks, then waits for the next wake-up and looks again. Nothing that happens between two calls of `next` is lost.
 */
export interface Wakeups extends Disposable {
  /** An entry of this directory is made, changed or removed, or the directory itself is, which need not exist yet. */
  directory(path: string): void
  /**
   * This process (in place of the one before) executes a program. From when the promise resolves none is missed. `isImminent`, asked where the kernel
   * does not tell us of execs: whether it will soon, so that it is worth looking again and again.
   */
  exec(pid: number, isImminent: () => Promise<boolean>): Promise<void>
  /** Throws when `host.signal` is aborted. */
  next(): Promise<void>
}

export interface Host {
  readonly log: Log
  /** Aborted when the operation is cancelled or runs out of time. */
  readonly signal: AbortSignal
  /** Identity of a live process. Throws NO_SUCH_PROCESS. */
  identify(pid: number): Promise<Target>
  /** A look at one process, undefined when there is none. */
  brief(pid: number): Promise<ProcessBrief | undefined>
  /** A look at the tree below `target`. Throws NO_SUCH_PROCESS when it is gone or is another process by now. */
  inspect(target: Target): Promise<Snapshot>
  /** Sends to exactly this process (pidfd, checked start time). False when it is gone. */
  kill(target: Target, signal: number): Promise<boolean>
  /** Stops, or lets go on, every process of the tree; parents first, repeated until no new process appears. */
  stopTree(target: Target): Promise<void>
  continueTree(target: Target): Promise<void>
  wakeups(): Wakeups
  /** Whether there is something of that name, whatever it is. */
  exists(path: string): Promise<boolean>
  /** Contents of a small text file (/proc, runtime state); undefined when it does not exist. */
  readText(path: string): Promise<string | undefined>
  /** Runs a program to its end. Output is bounded (1 MiB each). */
  exec(argv: readonly [string, ...string[]], options?: { readonly timeoutMs?: number }): Promise<ExecResult>
  readonly cuda: CudaDriver
  /** Another runtime's plan for the same target: containerd asks runc. */
  delegate<T>(runtime: string, verb: string, ...args: readonly unknown[]): Promise<T>
}

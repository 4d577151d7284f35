import { CedanaError } from '../../plugins/contract/errors.js'
import type { Log } from '../../plugins/contract/host.js'
import type { Progress, Step } from './verbs.js'

/** Lets a test fail, or end the process, at any step of any operation. */
export interface Faults {
  before(operation: string, step: string): void | Promise<void>
  after(operation: string, step: string): void | Promise<void>
}

export interface OperationContext {
  readonly signal: AbortSignal
  readonly log: Log
  readonly onProgress: (progress: Progress) => void
  readonly faults: Faults | undefined
}

interface StepOptions<T> {
  readonly category?: string
  /** Undo, when anything later (or what follows inside the operation) fails. */
  readonly onFailure?: (made: T) => unknown
  /** Runs at the end whatever happens, or earlier by `end`. */
  readonly always?: (made: T) => unknown
  /** The step runs to its end even when the caller has gone away. */
  readonly uncancellable?: boolean
}

interface Cleanup {
  readonly step: string
  readonly onlyOnFailure: boolean
  readonly run: () => unknown
}

/**
 * One verb being carried out: a flat list of steps, each timed, each with its undo.
 * Without `done` it has failed: leaving the scope then runs every clean-up, last step first. The first failure is the one reported;
 * failures of clean-ups are attached to it.
 */
export class Operation implements AsyncDisposable {
  readonly steps: Step[] = []
  readonly #cleanups: Cleanup[] = []
  #failure: CedanaError | undefined
  #succeeded = false
  #bytes = 0

  constructor(
    readonly name: string,
    readonly context: OperationContext,
  ) {}

  async step<T>(name: string, work: () => T | Promise<T>, options: StepOptions<T> = {}): Promise<T> {
    const started = process.hrtime.bigint()
    try {
      if (!options.uncancellable) this.#throwIfAborted()
      this.progress({ phase: name, bytes: 0, totalBytes: 0, frozen: false })
      await this.context.faults?.before(this.name, name)
      const made = await work()
      const { onFailure, always } = options
      if (onFailure) this.#cleanups.push({ step: name, onlyOnFailure: true, run: () => onFailure(made) })
      if (always) this.#cleanups.push({ step: name, onlyOnFailure: false, run: () => always(made) })
      await this.context.faults?.after(this.name, name)
      return made
    } catch (thrown) {
      this.#failure ??= options.uncancellable ? CedanaError.from(thrown) : this.#explain(thrown)
      throw this.#failure
    } finally {
      const durationNs = Number(process.hrtime.bigint() - started)
      this.steps.push({ name, category: options.category ?? this.name, durationNs, bytes: this.#bytes })
      this.#bytes = 0
      this.context.log.debug({ op: this.name, step: name, ms: durationNs / 1e6 }, 'step')
    }
  }

  /** Bytes moved by the step that runs now. */
  moved(bytes: number): void {
    this.#bytes += bytes
  }

  progress(progress: Progress): void {
    this.context.onProgress(progress)
  }

  /** Runs the `always` clean-up of a step now instead of at the end. */
  async end(step: string): Promise<void> {
    const index = this.#cleanups.findIndex((cleanup) => cleanup.step === step && !cleanup.onlyOnFailure)
    const [cleanup] = index < 0 ? [] : this.#cleanups.splice(index, 1)
    await cleanup?.run()
  }

  done<T>(result: T): T {
    this.#succeeded = true
    return result
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const cleanup of this.#cleanups.splice(0).reverse()) {
      if (cleanup.onlyOnFailure && this.#succeeded) continue
      try {
        await cleanup.run()
      } catch (thrown) {
        const error = CedanaError.from(thrown)
        this.#failure?.suppressed.push(error)
        this.context.log.warn({ op: this.name, step: cleanup.step, err: error.message }, 'clean-up failed')
      }
    }
  }

  #throwIfAborted(): void {
    if (this.context.signal.aborted) throw this.#explain(undefined)
  }

  /** What was broken off says so in many ways; all mean that the operation was cancelled. */
  #explain(thrown: unknown): CedanaError {
    if (!this.context.signal.aborted) return CedanaError.from(thrown)
    const reason: unknown = this.context.signal.reason
    return reason instanceof CedanaError ? reason : new CedanaError('CANCELLED', `${this.name} cancelled`, { cause: thrown ?? reason })
  }
}

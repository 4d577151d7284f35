/** What a plugin waits with: the kernel's word of directories and of execs, until the operation is cancelled. */
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Log, Wakeups } from '../../plugins/contract/host.js'
import { FollowedDirectory } from './directories.js'
import { Execs } from './execs.js'

/** Between two looks at a process whose exec the kernel does not tell us of, at first and at last. */
const LOOK_MS = 1
const LOOK_MOST_MS = 100

const sharedExecs = new Execs()

export class HostWakeups implements Wakeups {
  readonly #directories: Disposable[] = []
  #watched: { readonly pid: number; readonly end: Disposable | undefined } | undefined
  #timer: NodeJS.Timeout | undefined
  #lookMs = LOOK_MS
  #isAwake = false
  #failure: CedanaError | undefined
  #resolve: () => void = () => {}

  constructor(
    private readonly signal: AbortSignal,
    private readonly log: Log,
    private readonly execs: Pick<Execs, 'watch'> = sharedExecs,
  ) {
    signal.addEventListener('abort', this.#wake)
  }

  directory(path: string): void {
    const fail = (error: CedanaError): void => {
      this.#failure = error
      this.#wake()
    }
    this.#directories.push(new FollowedDirectory(path, this.#wake, fail))
  }

  async exec(pid: number, isImminent: () => Promise<boolean>): Promise<void> {
    if (this.#watched?.pid !== pid) {
      this.#endWatch()
      this.#watched = { pid, end: await this.execs.watch(pid, this.#wake, this.log) }
      this.#lookMs = LOOK_MS
    }
    if (this.#watched.end || !(await isImminent())) return
    clearTimeout(this.#timer)
    this.#timer = setTimeout(this.#wake, this.#lookMs)
    this.#lookMs = Math.min(2 * this.#lookMs, LOOK_MOST_MS)
  }

  async next(): Promise<void> {
    const woken = new Promise<void>((resolve) => (this.#resolve = resolve))
    if (!this.#isAwake && !this.signal.aborted) await woken
    this.#isAwake = false
    if (this.signal.aborted) throw CedanaError.from(this.signal.reason)
    if (this.#failure) throw this.#failure
  }

  [Symbol.dispose](): void {
    this.signal.removeEventListener('abort', this.#wake)
    for (const directory of this.#directories.splice(0)) directory[Symbol.dispose]()
    this.#endWatch()
  }

  #wake = (): void => {
    this.#isAwake = true
    this.#resolve()
  }

  #endWatch(): void {
    clearTimeout(this.#timer)
    this.#watched?.end?.[Symbol.dispose]()
    this.#watched = undefined
  }
}

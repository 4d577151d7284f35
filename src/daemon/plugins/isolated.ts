/**
 * An external plugin, whose code runs in a process of its own: started when it is first needed, ended when it has not been for a while. Whatever the code
 * does, a verb ends: by itself, in time, or with the process, which the next verb has anew.
 */
import { isDeepStrictEqual } from 'node:util'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Host, Log } from '../../plugins/contract/host.js'
import type { LaunchContext, Verb } from '../../plugins/contract/runtime.js'
import type { RuntimeDescription } from '../../plugins/description.js'
import { DESCRIPTION_FILE } from '../../plugins/packages.js'
import type { LoadedRuntime } from '../../plugins/registry.js'
import { serveHost, serveLaunch } from './host-proxy.js'
import { Scope } from './peer.js'
import { checkedResult, explainedFailure } from './results.js'
import { PluginWorker, WorkerEnded } from './worker.js'

const IDLE_MS = 30_000
/** What one that was told to end may take to take back what it has done. */
const GRACE_MS = 5000
/** These take as long as they take: the caller's time is theirs. */
const UNLIMITED: readonly string[] = ['upcoming', 'launch']

export interface IsolatedOptions {
  readonly description: RuntimeDescription
  readonly log: Log
  readonly loadTimeoutMs: number
  readonly verbTimeoutMs: number
  /** Path of the module that exports the plugin. */
  entry(): Promise<string>
  /** It could not be started for a verb. */
  onUnusable(thrown: CedanaError): void
}

/** A process, and what is under way in it. */
interface Running {
  readonly worker: PluginWorker
  readonly verbs: string[]
  latest: string
  isRetired: boolean
  idle: NodeJS.Timeout | undefined
}

export class IsolatedPlugin {
  readonly loaded: LoadedRuntime
  readonly #name: string
  readonly #problems = new Map<string, string>()
  readonly #all = new Set<Running>()
  #current: Promise<Running> | undefined

  constructor(private readonly options: IsolatedOptions) {
    const { name, verbs } = options.description
    this.#name = name
    const proxies = (Object.keys(verbs) as Verb[]).map((verb) => [verb, this.#proxy(verb)] as const)
    this.loaded = {
      verbs: Object.fromEntries(proxies),
      parse: (verb, given) => this.#run(`options of ${verb}`, undefined, (worker) => worker.ask('parse', [verb, given])),
    }
  }

  /** What has gone wrong with it, and has not gone well since. */
  get problem(): string {
    return [...this.#problems.values()].at(-1) ?? ''
  }

  /** Runs its code. Throws PLUGIN_FAILED when it is no plugin, or another. */
  async check(): Promise<void> {
    this.#giveBack(await this.#take('loading'), 'loading')
  }

  /** What is under way goes on to its end. */
  close(): void {
    for (const running of this.#all) this.#retire(running, 'it is not installed any more')
  }

  #proxy(verb: Verb): (host: Host, ...rest: readonly unknown[]) => Promise<unknown> {
    return (host, ...rest) =>
      this.#run(verb, host.signal, async (worker, signal, scope) => {
        const [context, ...others] = rest
        const args = verb === 'launch' ? [serveLaunch(context as LaunchContext), ...others] : rest
        const result = await worker.ask('verb', [verb, serveHost({ ...host, signal }, scope), signal, ...args], scope)
        return checkedResult(this.#name, verb, result)
      })
  }

  async #run<T>(
    what: string,
    cancelled: AbortSignal | undefined,
    work: (worker: PluginWorker, signal: AbortSignal, scope: Scope) => Promise<T>,
  ): Promise<T> {
    const running = await this.#take(what).catch((thrown: unknown) => {
      const error = CedanaError.from(thrown)
      this.options.onUnusable(error)
      throw new CedanaError('PLUGIN_FAILED', `plugin ${this.#name} cannot be used: ${error.message}`, { cause: error })
    })
    using scope = new Scope()
    const [late, over] = [new AbortController(), new AbortController()]
    const told = cancelled === undefined ? late.signal : AbortSignal.any([cancelled, late.signal])
    try {
      const givenUp = this.#givenUp(what, { told, late, over: over.signal }).catch((thrown: unknown) => {
        this.#retire(running, `its process was ended, because ${what} did not end`)
        throw thrown
      })
      const done = await Promise.race([work(running.worker, AbortSignal.any([told, over.signal]), scope), givenUp])
      this.#problems.delete(what)
      return done
    } catch (thrown) {
      if (!late.signal.aborted && !running.isRetired) this.#problems.delete(what)
      throw this.#explain(what, late.signal.aborted ? late.signal.reason : thrown)
    } finally {
      // First nothing more of this call is served, then what it has under way here ends.
      scope[Symbol.dispose]()
      over.abort(new CedanaError('CANCELLED', `plugin ${this.#name} is done with ${what}`))
      this.#giveBack(running, what)
    }
  }

  /** Rejects when a verb has had its time, or that of its caller, and some more to end. */
  #givenUp(
    what: string,
    { told, late, over }: { readonly told: AbortSignal; readonly late: AbortController; readonly over: AbortSignal },
  ): Promise<never> {
    const { verbTimeoutMs: limitMs, log } = this.options
    const blame = (problem: string): string => {
      const message = `plugin ${this.#name} did not ${problem}`
      log.warn({ plugin: this.#name, verb: what }, message)
      this.#problems.set(what, message)
      return message
    }
    return new Promise((_, reject) => {
      const timers: NodeJS.Timeout[] = []
      const isLate = (): void => late.abort(new CedanaError('TIMEOUT', blame(`finish ${what} within ${limitMs / 1000} s`)))
      if (!UNLIMITED.includes(what)) timers.push(setTimeout(isLate, limitMs))
      const giveUp = (): void => {
        const isStuck = (): void => {
          if (!late.signal.aborted) blame(`end ${what} when it was cancelled`)
          reject(told.reason as Error)
        }
        timers.push(setTimeout(isStuck, Math.min(limitMs, GRACE_MS)))
      }
      told.addEventListener('abort', giveUp, { signal: over })
      over.addEventListener('abort', () => timers.forEach(clearTimeout))
      if (told.aborted) giveUp()
    })
  }

  #explain(what: string, thrown: unknown): CedanaError {
    if (!(thrown instanceof WorkerEnded)) return explainedFailure(this.#name, what, thrown)
    const message = `plugin ${this.#name} failed in ${what}: ${thrown.message}`
    if (!thrown.byUs) this.#problems.set(what, message)
    return new CedanaError('PLUGIN_FAILED', message)
  }

  async #take(what: string): Promise<Running> {
    this.#current ??= this.#start().catch((thrown: unknown) => {
      this.#current = undefined
      throw thrown
    })
    const running = await this.#current
    clearTimeout(running.idle)
    running.verbs.push(what)
    running.latest = what
    running.worker.keep(true)
    return running
  }

  #giveBack(running: Running, what: string): void {
    running.verbs.splice(running.verbs.indexOf(what), 1)
    this.#settle(running)
  }

  /** With nothing to do it is kept for a while, where it is wanted. */
  #settle(running: Running): void {
    if (running.verbs.length > 0) return
    running.worker.keep(false)
    clearTimeout(running.idle)
    if (running.worker.held > 0) return
    if (running.isRetired) return void running.worker.kill('is not needed any more')
    running.idle = setTimeout(() => this.#retire(running, 'it is not needed any more'), IDLE_MS).unref()
  }

  /** Nothing new is begun in it. It ends with what is under way, or at once when it does not answer. */
  #retire(running: Running, why: string): void {
    if (running.isRetired) return
    running.isRetired = true
    this.#current = undefined
    this.#settle(running)
    void running.worker.answers().then((answers) => {
      if (!answers) void running.worker.kill(why)
    })
  }

  async #start(): Promise<Running> {
    const { description, log, loadTimeoutMs } = this.options
    const entry = await this.options.entry()
    const { worker, description: found } = await PluginWorker.start(entry, { name: this.#name, log, loadTimeoutMs })
    const running: Running = { worker, verbs: [], latest: '', isRetired: false, idle: undefined }
    this.#all.add(running)
    worker.onRelease(() => this.#settle(running))
    worker.onEnd((ended) => this.#ended(running, ended))
    if (isDeepStrictEqual(found, description)) return running
    running.isRetired = true
    await worker.kill('is not needed')
    throw new CedanaError('PLUGIN_FAILED', `its code is not what ${DESCRIPTION_FILE} says`, {
      hint: 'make that again: cedana plugin manifest DIR',
    })
  }

  #ended(running: Running, ended: WorkerEnded): void {
    this.#all.delete(running)
    clearTimeout(running.idle)
    if (!running.isRetired) this.#current = undefined
    running.isRetired = true
    if (ended.byUs) return
    const { log } = this.options
    log.warn({ plugin: this.#name, verbs: running.verbs, reason: ended.message }, 'plugin ended')
    // Calls that are under way tell of it themselves.
    if (running.verbs.length === 0)
      this.#problems.set(running.latest, `plugin ${this.#name} failed after ${running.latest}: ${ended.message}`)
  }
}

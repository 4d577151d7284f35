/** What a command asks of: the daemon over gRPC (client.ts), or the same verbs in its own process (`--no-server`). */
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Caller } from '../../plugins/contract/job.js'
import type { Call, Progress, Verbs } from '../operations/verbs.js'

export type * from '../operations/verbs.js'

export interface AskOptions {
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: Progress) => void) | undefined
  /** Undefined: the limit of the verb (10 minutes for a dump …). 0: none. */
  readonly timeoutMs?: number | undefined
}

/** Every verb without its `call`, options last: `engine.dump(request, { onProgress })`. */
export type Engine = {
  readonly [V in Exclude<keyof Verbs, 'version'>]: Verbs[V] extends (call: Call, ...args: infer A) => infer R
    ? (...args: [...args: A, options?: AskOptions]) => R
    : never
} & {
  version(options?: AskOptions): Promise<ReturnType<Verbs['version']>>
  close(): void
}

const MINUTE = 60_000
type Timed = keyof Omit<Engine, 'close'>
const LIMITS: Readonly<Record<Timed, number>> = {
  dump: 10 * MINUTE,
  restore: 10 * MINUTE,
  run: MINUTE,
  manage: MINUTE,
  freeze: MINUTE,
  unfreeze: MINUTE,
  check: MINUTE,
  verifyCheckpoint: 10 * MINUTE,
  exportCheckpoint: 10 * MINUTE,
  inspectCheckpoint: MINUTE,
  attach: 0,
  getJob: 20_000,
  listJobs: 20_000,
  killJobs: 20_000,
  deleteJobs: 20_000,
  listCheckpoints: 20_000,
  deleteCheckpoint: MINUTE,
  query: 20_000,
  listPlugins: MINUTE,
  reloadPlugins: MINUTE,
  reload: MINUTE,
  version: 20_000,
}

/** Slack over a limit that the daemon keeps itself, so that its own, better error arrives. */
const SLACK = 5_000

/** Milliseconds until the client gives up; 0: never. A limit that the request itself carries is the daemon's to keep. */
export function timeLimit(verb: Timed, request: unknown, options: AskOptions = {}): number {
  if (options.timeoutMs !== undefined) return options.timeoutMs
  if (typeof request === 'object' && request !== null) {
    if ('timeoutMs' in request && typeof request.timeoutMs === 'number' && request.timeoutMs > 0) return request.timeoutMs + SLACK
    if ('upcoming' in request && request.upcoming === true) return 0
    if ('graceMs' in request && typeof request.graceMs === 'number') return LIMITS[verb] + request.graceMs
  }
  return LIMITS[verb]
}

/** The verbs in this process, for this caller. No time limit but the one asked for. */
export function localEngine(verbs: Verbs, caller: Caller): Engine {
  const call = (options: AskOptions = {}): Call => {
    const signals = options.signal === undefined ? [] : [options.signal]
    const { timeoutMs = 0 } = options
    if (timeoutMs > 0) {
      const timer = new AbortController()
      setTimeout(() => {
        timer.abort(new CedanaError('TIMEOUT', `no result within ${timeoutMs / 1000} s`))
      }, timeoutMs).unref()
      signals.push(timer.signal)
    }
    return { caller, signal: AbortSignal.any(signals), onProgress: options.onProgress ?? (() => {}) }
  }
  return {
    run: (request, options) => verbs.run(call(options), request),
    manage: (request, options) => verbs.manage(call(options), request),
    dump: (request, options) => verbs.dump(call(options), request),
    restore: (request, options) => verbs.restore(call(options), request),
    freeze: (request, options) => verbs.freeze(call(options), request),
    unfreeze: (request, options) => verbs.unfreeze(call(options), request),
    attach: (request, input, options) => verbs.attach(call(options), request, input),
    getJob: (jid, options) => verbs.getJob(call(options), jid),
    listJobs: (filter, options) => verbs.listJobs(call(options), filter),
    killJobs: (request, options) => verbs.killJobs(call(options), request),
    deleteJobs: (request, options) => verbs.deleteJobs(call(options), request),
    listCheckpoints: (jid, options) => verbs.listCheckpoints(call(options), jid),
    inspectCheckpoint: (id, options) => verbs.inspectCheckpoint(call(options), id),
    verifyCheckpoint: (id, options) => verbs.verifyCheckpoint(call(options), id),
    exportCheckpoint: (request, options) => verbs.exportCheckpoint(call(options), request),
    deleteCheckpoint: (id, options) => verbs.deleteCheckpoint(call(options), id),
    query: (request, options) => verbs.query(call(options), request),
    check: (request, options) => verbs.check(call(options), request),
    listPlugins: (request, options) => verbs.listPlugins(call(options), request),
    reloadPlugins: (options) => verbs.reloadPlugins(call(options)),
    reload: (options) => verbs.reload(call(options)),
    version: async () => verbs.version(),
    close: () => {},
  }
}

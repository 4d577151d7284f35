/** From a gRPC call to a Call of the domain and back: who asks, until when, how errors leave. */
import {
  Metadata,
  status,
  type sendUnaryData,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type StatusObject,
} from '@grpc/grpc-js'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Call, Progress } from '../operations/verbs.js'
import { toWireProgress } from './codec.js'
import type { Progress as WireProgress } from './gen/cedana.js'
import type { Peers } from './peers.js'
import { toStatus, TRAILER } from './status.js'

export interface ServerLog {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

interface AnyCall {
  readonly metadata: Metadata
  getPeer(): string
  getPath(): string
  getDeadline(): Date | number
  once(event: 'cancelled', listener: () => void): unknown
}

interface Running {
  readonly controller: AbortController
  /** Ends when its client does (an attachment) or may wait for ever, so a stopping daemon does not wait for it. */
  readonly isEndless: boolean
  readonly ended: Promise<void>
}

/** Who watches cannot see more, and each costs an operation of some milliseconds a part of them. */
const PROGRESS_MS = 100

/** Hands on the newest of what it is given, at most one in each `intervalMs`, and none while the receiver has no room: the giver never waits. */
class Latest<T> {
  private newest: T | undefined
  private hasRoom = true
  private readonly timer: NodeJS.Timeout

  constructor(
    intervalMs: number,
    private readonly send: (value: T) => boolean,
  ) {
    this.timer = setInterval(() => this.flush(), intervalMs).unref()
  }

  put(value: T): void {
    this.newest = value
  }

  /** The receiver has room again. */
  resume(): void {
    this.hasRoom = true
  }

  stop(): void {
    clearInterval(this.timer)
  }

  private flush(): void {
    if (this.newest === undefined || !this.hasRoom) return
    const value = this.newest
    this.newest = undefined
    this.hasRoom = this.send(value)
  }
}

const stopping = (): CedanaError => new CedanaError('CANCELLED', 'the daemon is stopping')

export class Calls {
  private readonly running = new Set<Running>()
  private isStopping = false

  constructor(
    private readonly peers: Peers,
    private readonly log: ServerLog,
  ) {}

  unary =
    <Q, R>(ask: (call: Call, request: Q) => Promise<R> | R, isEndless: (request: Q) => boolean = () => false) =>
    (call: ServerUnaryCall<Q, R>, callback: sendUnaryData<R>): void => {
      this.carry(
        call,
        isEndless(call.request),
        async (asked) => callback(null, await ask(asked, call.request)),
        (error) => callback(ending(error)),
      )
    }

  /** A verb that reports progress: events while it runs, the result as the last one. */
  withProgress =
    <Q, R>(ask: (call: Call, request: Q) => Promise<R>) =>
    (
      call: ServerWritableStream<Q, { event: { $case: 'progress'; progress: WireProgress } | { $case: 'result'; result: R } | undefined }>,
    ): void => {
      const progress = new Latest<Progress>(PROGRESS_MS, (one) =>
        call.write({ event: { $case: 'progress', progress: toWireProgress(one) } }),
      )
      call.on('drain', () => progress.resume())
      this.carry(
        call,
        false,
        async (asked) => {
          const result = await ask({ ...asked, onProgress: (one) => progress.put(one) }, call.request).finally(() => progress.stop())
          call.write({ event: { $case: 'result', result } })
          call.end()
        },
        (error) => call.emit('error', ending(error)),
      )
    }

  duplex =
    <Q, R>(ask: (call: Call, input: AsyncIterator<Q>) => AsyncIterable<R>) =>
    (call: ServerDuplexStream<Q, R>): void => {
      this.carry(
        call,
        true,
        async (asked) => {
          for await (const message of ask(asked, (call as AsyncIterable<Q>)[Symbol.asyncIterator]())) {
            if (!call.write(message)) await roomOrEnd(call, asked.signal)
          }
          asked.signal.throwIfAborted()
          call.end()
        },
        (error) => call.emit('error', ending(error)),
      )
    }

  /** Lets calls end by themselves for `graceMs`, then cancels them; resolves when all have ended. */
  async stop(graceMs: number): Promise<void> {
    this.isStopping = true
    const all = [...this.running]
    const timer = setTimeout(() => all.forEach(({ controller }) => controller.abort(stopping())), graceMs)
    for (const { isEndless, controller } of all) if (isEndless) controller.abort(stopping())
    await Promise.all(all.map(({ ended }) => ended))
    clearTimeout(timer)
  }

  private carry(call: AnyCall, isEndless: boolean, work: (asked: Call) => Promise<void>, fail: (error: CedanaError) => void): void {
    const startedAt = performance.now()
    const controller = new AbortController()
    const verb = call.getPath().slice(call.getPath().lastIndexOf('/') + 1)
    let uid: number | undefined
    const asked = async (): Promise<void> => {
      const caller = this.peers.callerOf(call)
      uid = caller.uid
      if (this.isStopping) throw stopping()
      await work({ caller, signal: controller.signal, onProgress: () => {} })
    }
    call.once('cancelled', () => {
      // gRPC says so after every call; what belongs to one that is over must not be told.
      if (!this.running.has(running)) return
      const isLate = Number(call.getDeadline()) <= Date.now()
      controller.abort(
        isLate ? new CedanaError('TIMEOUT', 'the time limit of the client is over') : new CedanaError('CANCELLED', 'operation cancelled'),
      )
    })
    const ended = asked()
      .then(
        () => this.log.debug({ verb, uid, ms: Math.round(performance.now() - startedAt) }, 'call served'),
        (thrown: unknown) => {
          const error = CedanaError.from(thrown)
          this.report(verb, uid, error)
          fail(error)
        },
      )
      .finally(() => this.running.delete(running))
    const running: Running = { controller, isEndless, ended }
    this.running.add(running)
  }

  /** Never the request: it may hold secrets. */
  private report(verb: string, uid: number | undefined, error: CedanaError): void {
    const fields = { verb, uid, code: error.code, error: error.message }
    // Whoever gives up knows why.
    if (error.code === 'CANCELLED') this.log.debug(fields, 'call cancelled')
    else if (error.code === 'BUG')
      this.log.error({ ...fields, stack: (error.cause instanceof Error ? error.cause : error).stack }, 'call failed')
    else this.log.warn(fields, 'call failed')
  }
}

function ending(error: CedanaError): StatusObject {
  const { name, details, error: encoded } = toStatus(error)
  const metadata = new Metadata()
  metadata.set(TRAILER, encoded)
  return { code: status[name], details, metadata }
}

function roomOrEnd(call: ServerDuplexStream<unknown, unknown>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      call.removeListener('drain', done)
      signal.removeEventListener('abort', done)
      resolve()
    }
    call.once('drain', done)
    signal.addEventListener('abort', done)
    if (signal.aborted) done()
  })
}

/**
 * gRPC over HTTP/2, as far as clients need it: one connection, no compression, no proxy, no retries. The daemon serves by grpc-js, which can do the
 * same; but loading it takes a command, or a launcher, longer than its whole conversation.
 */
import { connect as startHttp2, constants, type ClientHttp2Session, type ClientHttp2Stream, type IncomingHttpHeaders } from 'node:http2'
import { connect as connectSocket, type NetConnectOpts } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** Numbers of the wire. */
export const STATUS = {
  OK: 0,
  CANCELLED: 1,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const

/** How a call ended that did not end well; `trailers`: what the server added. */
export class CallFailed extends Error {
  constructor(
    readonly status: number,
    readonly details: string,
    readonly trailers: IncomingHttpHeaders = {},
  ) {
    super(details)
  }
}

/** The definition of a method, as generated: `TasksService.get`. */
export interface Method<Request, Response> {
  readonly path: string
  requestSerialize(request: Request): Buffer
  requestDeserialize(bytes: Buffer): Request
  responseDeserialize(bytes: Buffer): Response
}

const EMPTY = Buffer.alloc(0)
/** Fields that are not given are as protobuf leaves them out. */
export const whole = <Request>(method: Pick<Method<Request, unknown>, 'requestDeserialize'>, request: Partial<Request>): Request => ({
  ...method.requestDeserialize(EMPTY),
  ...request,
})

export interface ChannelOptions {
  /** Of a request or an answer. */
  readonly maxMessageBytes: number
  /** Wait for a server that is not up yet, as long as the call may take. */
  readonly waitForReady?: boolean
}
export interface CallOptions {
  /** 0: none. */
  readonly limitMs: number
  readonly signal: AbortSignal | undefined
  readonly headers?: Readonly<Record<string, string>>
}

interface Link {
  readonly session: ClientHttp2Session
  /** Why the connection is of no use. */
  error: Error | undefined
}

const RETRY_MS = 100

export class Channel {
  private link: Link | undefined

  constructor(
    private readonly to: NetConnectOpts,
    private readonly options: ChannelOptions,
  ) {}

  /** Connects when there is no connection, or no longer. */
  async open(path: string, { limitMs, signal, headers }: CallOptions): Promise<ClientCall> {
    const until = limitMs > 0 ? Date.now() + limitMs : Infinity
    if (this.options.waitForReady === true) await this.ready(until, signal)
    if (signal?.aborted === true) throw cancelled()
    const { link } = this.linked()
    const left = limitMs > 0 ? Math.max(1, until - Date.now()) : 0
    const stream = link.session.request({
      ...headers,
      [constants.HTTP2_HEADER_METHOD]: 'POST',
      [constants.HTTP2_HEADER_PATH]: path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...(left > 0 ? { 'grpc-timeout': `${left}m` } : {}),
    })
    return new ClientCall(stream, link, { limitMs: left, signal, maxBytes: this.options.maxMessageBytes })
  }

  /** Calls that have begun may end. */
  close(): void {
    this.link?.session.close()
    this.link = undefined
  }

  private linked(): { link: Link; connected: Promise<boolean> } {
    const { link } = this
    if (link !== undefined && !link.session.closed && !link.session.destroyed) return { link, connected: Promise.resolve(true) }
    return this.connect()
  }

  private connect(): { link: Link; connected: Promise<boolean> } {
    const socket = connectSocket(this.to)
    const authority = 'port' in this.to ? `${authorityOf(this.to.host)}:${this.to.port}` : 'localhost'
    const session = startHttp2(`http://${authority}`, { createConnection: () => socket, settings: { enablePush: false } })
    const link: Link = { session, error: undefined }
    const keep = (error: Error): void => void (link.error ??= error)
    socket.on('error', keep)
    session.on('error', keep)
    this.link = link
    const connected = new Promise<boolean>((resolve) => {
      session.once('connect', () => resolve(true))
      session.once('close', () => resolve(false))
    })
    return { link, connected }
  }

  private async ready(until: number, signal: AbortSignal | undefined): Promise<void> {
    while (!(await this.linked().connected)) {
      if (Date.now() + RETRY_MS > until) throw new CallFailed(STATUS.DEADLINE_EXCEEDED, 'no connection in time')
      await sleep(RETRY_MS, undefined, { signal }).catch(() => {
        throw cancelled()
      })
    }
  }
}

const authorityOf = (host = 'localhost'): string => (host.includes(':') ? `[${host}]` : host)

const cancelled = (): CallFailed => new CallFailed(STATUS.CANCELLED, 'cancelled')

/** The server ends a call at its limit, with its own words; this is for one that does not answer. */
const SLACK_MS = 100
const PREFIX = 5

export class ClientCall {
  private readonly maxBytes: number
  /** Known as soon as anything ends the call. */
  private end: CallFailed | 'ok' | undefined
  private readonly ended: Promise<void>

  constructor(
    private readonly stream: ClientHttp2Stream,
    link: Link,
    { limitMs, signal, maxBytes }: CallOptions & { readonly maxBytes: number },
  ) {
    this.maxBytes = maxBytes
    const cancel = (): void => this.cancel()
    signal?.addEventListener('abort', cancel, { once: true })
    const late = (): void => this.cancel(new CallFailed(STATUS.DEADLINE_EXCEEDED, 'no answer in time'))
    const timer = limitMs > 0 ? setTimeout(late, limitMs + SLACK_MS) : undefined
    this.ended = new Promise((resolve) => {
      const finish = (end: CallFailed | 'ok'): void => {
        this.end ??= end
        resolve()
      }
      stream.on('response', (headers) => {
        const status = Number(headers[constants.HTTP2_HEADER_STATUS])
        if (status !== 200) finish(new CallFailed(STATUS.UNAVAILABLE, `not a gRPC server: HTTP status ${status}`))
        else if ('grpc-status' in headers) finish(outcome(headers))
      })
      stream.on('trailers', (headers: IncomingHttpHeaders) => {
        if ('grpc-status' in headers) finish(outcome(headers))
      })
      stream.on('error', () => {})
      stream.on('close', () => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', cancel)
        finish(new CallFailed(STATUS.UNAVAILABLE, link.error?.message ?? 'the connection was lost'))
      })
    })
  }

  /** Nothing that is sent is wanted any more. */
  get isOver(): boolean {
    return this.end !== undefined || !this.stream.writable
  }

  /** False: the server does not take more for now. */
  write(message: Uint8Array): boolean {
    return this.stream.writable ? this.stream.write(this.framed(message)) : true
  }

  /** No more from us, after this. */
  finish(message?: Uint8Array): void {
    if (!this.stream.writable) return
    if (message === undefined) this.stream.end()
    else this.stream.end(this.framed(message))
  }

  /** The server takes more again, or the call is over. */
  async drained(): Promise<void> {
    let go = (): void => {}
    const drained = new Promise<void>((resolve) => (go = resolve))
    this.stream.once('drain', go)
    await Promise.race([drained, this.ended])
    this.stream.off('drain', go)
  }

  cancel(reason = cancelled()): void {
    this.end ??= reason
    this.stream.close(constants.NGHTTP2_CANCEL)
  }

  /** Until the server ends the call; throws CallFailed when that was not the end it should have. To be read once. */
  async *messages(): AsyncGenerator<Buffer> {
    let parts: Buffer[] = []
    let held = 0
    try {
      for await (const part of this.stream as AsyncIterable<Buffer>) {
        parts.push(part)
        held += part.length
        while (held >= PREFIX) {
          if (parts[0]!.length < PREFIX) parts = [Buffer.concat(parts)]
          const size = PREFIX + this.sizeOf(parts[0]!)
          if (held < size) break
          const all = parts.length === 1 ? parts[0]! : Buffer.concat(parts)
          yield all.subarray(PREFIX, size)
          held -= size
          parts = held > 0 ? [all.subarray(size)] : []
        }
      }
    } catch (thrown) {
      // A broken connection: `ended` says how.
      if (thrown instanceof CallFailed) throw thrown
    } finally {
      if (this.end === undefined && !this.stream.readableEnded) this.cancel()
    }
    await this.ended
    if (this.end instanceof CallFailed) throw this.end
  }

  /** The last of them, which mostly is the only one. */
  async answer(): Promise<Buffer> {
    let last: Buffer | undefined
    for await (const message of this.messages()) last = message
    if (last === undefined) throw new CallFailed(STATUS.INTERNAL, 'the call ended without an answer')
    return last
  }

  private sizeOf(prefix: Buffer): number {
    const size = prefix.readUInt32BE(1)
    if (prefix[0] !== 0) throw new CallFailed(STATUS.INTERNAL, 'a compressed answer, which nobody asked for')
    this.refuseLarge(size)
    return size
  }

  /** Not compressed, length, message. */
  private framed(message: Uint8Array): Buffer {
    this.refuseLarge(message.length)
    const frame = Buffer.allocUnsafe(PREFIX + message.length)
    frame[0] = 0
    frame.writeUInt32BE(message.length, 1)
    frame.set(message, PREFIX)
    return frame
  }

  private refuseLarge(size: number): void {
    if (size > this.maxBytes) throw new CallFailed(STATUS.RESOURCE_EXHAUSTED, `a message of ${size} bytes is larger than ${this.maxBytes}`)
  }
}

function outcome(headers: IncomingHttpHeaders): CallFailed | 'ok' {
  const status = Number(headers['grpc-status'])
  if (status === STATUS.OK) return 'ok'
  return new CallFailed(status, decoded(String(headers['grpc-message'] ?? '')), headers)
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/**
 * gRPC over HTTP/2, as far as our client needs it: one connection, no compression, no proxy, no retries. The daemon uses grpc-js, which can do the
 * same; but loading it takes every command longer than its whole conversation with the daemon.
 */
import { connect as startHttp2, constants, type ClientHttp2Session, type ClientHttp2Stream, type IncomingHttpHeaders } from 'node:http2'
import { connect as connectSocket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { formatEndpoint, MAX_MESSAGE_BYTES, type Endpoint } from './endpoint.js'
import { STATUS } from './status.js'

/** How a call ended that did not end well; `trailers`: what the daemon added. */
export class CallFailed extends Error {
  constructor(
    readonly status: number,
    readonly details: string,
    readonly trailers: IncomingHttpHeaders = {},
  ) {
    super(details)
  }
}

export interface ChannelOptions {
  /** Sent with each call. */
  readonly headers: Readonly<Record<string, string>>
  /** Wait for a daemon that is not up yet, as long as the call may take. */
  readonly waitForReady: boolean
}
export interface CallOptions {
  /** 0: none. */
  readonly limitMs: number
  readonly signal: AbortSignal | undefined
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
    private readonly endpoint: Endpoint,
    private readonly options: ChannelOptions,
  ) {}

  /** Connects when there is no connection, or no longer. */
  async open(path: string, { limitMs, signal }: CallOptions): Promise<ClientCall> {
    const until = limitMs > 0 ? Date.now() + limitMs : Infinity
    if (this.options.waitForReady) await this.ready(until, signal)
    if (signal?.aborted === true) throw cancelled()
    const { link } = this.linked()
    const left = limitMs > 0 ? Math.max(1, until - Date.now()) : 0
    const stream = link.session.request({
      ...this.options.headers,
      [constants.HTTP2_HEADER_METHOD]: 'POST',
      [constants.HTTP2_HEADER_PATH]: path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...(left > 0 ? { 'grpc-timeout': `${left}m` } : {}),
    })
    return new ClientCall(stream, link, { limitMs: left, signal })
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
    const { endpoint } = this
    const socket =
      endpoint.protocol === 'unix'
        ? connectSocket({ path: endpoint.path })
        : connectSocket({ host: endpoint.host, port: endpoint.port, noDelay: true })
    const authority = endpoint.protocol === 'unix' ? 'localhost' : formatEndpoint(endpoint)
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

const cancelled = (): CallFailed => new CallFailed(STATUS.CANCELLED, 'cancelled')

/** The daemon ends a call at its limit, with its own words; this is for one that does not answer. */
const SLACK_MS = 100
const PREFIX = 5

export class ClientCall {
  /** Known as soon as anything ends the call. */
  private end: CallFailed | 'ok' | undefined
  private readonly ended: Promise<void>

  constructor(
    private readonly stream: ClientHttp2Stream,
    link: Link,
    { limitMs, signal }: CallOptions,
  ) {
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

  /** False: the daemon does not take more for now. */
  write(message: Uint8Array): boolean {
    return this.stream.writable ? this.stream.write(framed(message)) : true
  }

  /** No more from us, after this. */
  finish(message?: Uint8Array): void {
    if (!this.stream.writable) return
    if (message === undefined) this.stream.end()
    else this.stream.end(framed(message))
  }

  /** The daemon takes more again, or the call is over. */
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

  /** Until the daemon ends the call; throws CallFailed when that was not the end it should have. To be read once. */
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

  private sizeOf(prefix: Buffer): number {
    const size = prefix.readUInt32BE(1)
    if (prefix[0] !== 0) throw new CallFailed(STATUS.INTERNAL, 'a compressed answer, which nobody asked for')
    if (size > MAX_MESSAGE_BYTES) throw tooLarge(size)
    return size
  }
}

const tooLarge = (size: number): CallFailed =>
  new CallFailed(STATUS.RESOURCE_EXHAUSTED, `a message of ${size} bytes is larger than ${MAX_MESSAGE_BYTES}`)

/** Not compressed, length, message. */
function framed(message: Uint8Array): Buffer {
  if (message.length > MAX_MESSAGE_BYTES) throw tooLarge(message.length)
  const frame = Buffer.allocUnsafe(PREFIX + message.length)
  frame[0] = 0
  frame.writeUInt32BE(message.length, 1)
  frame.set(message, PREFIX)
  return frame
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

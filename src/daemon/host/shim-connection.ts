/** One connection to the socket of a shim: frames as in addon/shim/protocol.h. */
import { closeSync, constants, openSync } from 'node:fs'
import { createConnection, type Socket } from 'node:net'

import { CedanaError } from '../../plugins/contract/errors.js'
import type { ExitStatus } from '../../plugins/contract/job.js'
import { exitStatus, parseShimStatus, readShimExit, type ShimExit, type ShimState } from './shim-files.js'

export type ShimOutput =
  { readonly kind: 'stdout' | 'stderr'; readonly bytes: Buffer } | { readonly kind: 'exit'; readonly exit: ExitStatus | undefined }

export interface ShimStatus {
  readonly state: ShimState
  readonly exit: ShimExit | undefined
}

export interface PendingStdin {
  /** Input that the job has not read. */
  readonly bytes: Buffer
  /** Stdin ends after it. */
  readonly ended: boolean
}

const HEADER = 5
const MAX_FRAME = 1 << 20
const ATTACH_REPLAY = 1
const ATTACH_EXIT_ONLY = 2
/** Output taken from the shim ahead of the consumer; beyond it the shim waits, and the job after 1 MiB more. */
const MAX_AHEAD = 256 << 10
const WRITE_FRAME = 32 << 10

interface Waiter<T> {
  readonly resolve: (value: T) => void
  readonly reject: (error: CedanaError) => void
}

/**
 * Requests may be made at any time and in any number. A consumer of `attach` that stops taking output holds up the answers to
 * `status` and `pendingStdin` too: ask those on a connection of their own.
 */
export class ShimConnection {
  readonly #socket: Socket
  #received: Buffer = Buffer.alloc(0)
  #closed: CedanaError | undefined
  readonly #statusWaiters: Waiter<ShimStatus>[] = []
  readonly #pendingWaiters: Waiter<PendingStdin>[] = []
  #pendingParts: Buffer[] = []
  #attached = false
  readonly #outputs: ShimOutput[] = []
  #ahead = 0
  #wake: () => void = () => undefined

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', (chunk) => {
      this.#receive(chunk)
    })
    socket.on('error', (error) => {
      this.#end(error)
    })
    socket.on('close', () => {
      this.#end(undefined)
    })
  }

  /** Throws JOB_NOT_RUNNING when no shim listens there: it has ended, or never started. */
  static async open(directory: string): Promise<ShimConnection> {
    const directoryFd = openDirectory(directory)
    try {
      // The name of a socket has 107 bytes at most; through the descriptor it is short.
      const socket = createConnection({ path: `/proc/self/fd/${String(directoryFd)}/shim.sock` })
      await new Promise<void>((resolve, reject) => {
        socket.once('error', reject)
        socket.once('connect', () => {
          socket.off('error', reject)
          resolve()
        })
      })
      return new ShimConnection(socket)
    } catch (error) {
      throw noShim(directory, error)
    } finally {
      closeSync(directoryFd)
    }
  }

  /**
   * Output from now on, before it with `replay` the last 64 KiB, at the end the exit status. Ends without one when the shim was
   * killed, or when this consumer took nothing for 10 s while output waited. Leaving the loop closes the connection.
   */
  async *attach(replay: boolean): AsyncGenerator<ShimOutput, void> {
    if (this.#attached) throw new CedanaError('BUG', 'attached already')
    this.#attached = true
    try {
      await this.#send('A', Buffer.of(replay ? ATTACH_REPLAY : 0))
      yield* this.#take()
    } finally {
      this.close()
    }
  }

  /** How the job ended, as soon as it has; undefined when the shim went without saying. Closes the connection. */
  async exit(): Promise<ExitStatus | undefined> {
    if (this.#attached) throw new CedanaError('BUG', 'attached already')
    this.#attached = true
    try {
      await this.#send('A', Buffer.of(ATTACH_EXIT_ONLY))
      for await (const output of this.#take()) if (output.kind === 'exit') return output.exit
      return undefined
    } finally {
      this.close()
    }
  }

  /** Resolves when the shim has room for it: a job that does not read its stdin makes the writer wait. */
  async write(data: Uint8Array): Promise<void> {
    // All frames are queued at once, so that an end() called meanwhile comes after them.
    const sent: Promise<void>[] = []
    for (let at = 0; at < data.length; at += WRITE_FRAME) sent.push(this.#send('I', data.subarray(at, at + WRITE_FRAME)))
    await Promise.all(sent)
  }

  /** Ends stdin; at a terminal, types the end-of-file character. */
  async end(): Promise<void> {
    await this.#send('E')
  }

  async resize({ rows, columns }: { readonly rows: number; readonly columns: number }): Promise<void> {
    const payload = Buffer.alloc(4)
    payload.writeUInt16LE(rows, 0)
    payload.writeUInt16LE(columns, 2)
    await this.#send('W', payload)
  }

  /** Consumes nothing; exact only while the job is frozen and nobody writes. Empty for modes other than `pipe`, but for what waits for a terminal. */
  async pendingStdin(): Promise<PendingStdin> {
    return await this.#ask('P', this.#pendingWaiters)
  }

  async status(): Promise<ShimStatus> {
    return await this.#ask('S', this.#statusWaiters)
  }

  /** What was written before still arrives. */
  close(): void {
    this.#end(undefined)
    this.#socket.resume()
    this.#socket.end()
    this.#socket.unref()
  }

  async #ask<T>(type: string, waiters: Waiter<T>[]): Promise<T> {
    const answer = new Promise<T>((resolve, reject) => {
      waiters.push({ resolve, reject })
    })
    answer.catch(() => undefined) // when sending fails it is rejected too, and nobody waits for it
    await this.#send(type)
    return await answer
  }

  async #send(type: string, payload: Uint8Array = new Uint8Array()): Promise<void> {
    const header = Buffer.alloc(HEADER)
    header.write(type, 0, 'latin1')
    header.writeUInt32LE(payload.length, 1)
    await new Promise<void>((resolve, reject) => {
      if (this.#closed !== undefined) {
        reject(this.#closed)
        return
      }
      this.#socket.write(Buffer.concat([header, payload]), (error) => {
        if (!error) resolve()
        else reject(gone(error))
      })
    })
  }

  async *#take(): AsyncGenerator<ShimOutput, void> {
    for (;;) {
      const output = this.#outputs.shift()
      if (output !== undefined) {
        if (output.kind !== 'exit') this.#ahead -= output.bytes.length
        if (this.#ahead < MAX_AHEAD) this.#socket.resume()
        yield output
        if (output.kind === 'exit') return
      } else if (this.#closed !== undefined) {
        return
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
      }
    }
  }

  #receive(chunk: Buffer): void {
    if (this.#closed !== undefined) return
    this.#received = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk])
    let at = 0
    while (this.#received.length - at >= HEADER) {
      const length = this.#received.readUInt32LE(at + 1)
      if (length > MAX_FRAME) {
        this.#fail(`frame of ${String(length)} bytes`)
        return
      }
      if (this.#received.length - at < HEADER + length) break
      const type = String.fromCharCode(this.#received.readUInt8(at))
      this.#handle(type, this.#received.subarray(at + HEADER, at + HEADER + length))
      at += HEADER + length
    }
    this.#received = this.#received.subarray(at)
  }

  #handle(type: string, payload: Buffer): void {
    switch (type) {
      case 'O':
      case 'R':
        this.#push({ kind: type === 'O' ? 'stdout' : 'stderr', bytes: payload })
        this.#ahead += payload.length
        if (this.#ahead >= MAX_AHEAD) this.#socket.pause()
        break
      case 'X':
        if (payload.length !== 8) this.#fail('exit frame of the wrong size')
        else this.#push({ kind: 'exit', exit: exitStatus(payload.readInt32LE(0), payload.readInt32LE(4)) })
        break
      case 'S':
        try {
          const status = parseShimStatus(payload.toString('utf8'))
          this.#statusWaiters.shift()?.resolve(status) // without one: the greeting of an attach
        } catch (error) {
          this.#fail('unreadable status', error)
        }
        break
      case 'P': {
        this.#pendingParts.push(payload)
        if (payload.length === MAX_FRAME) break
        const all = Buffer.concat(this.#pendingParts)
        this.#pendingParts = []
        this.#pendingWaiters.shift()?.resolve({ ended: all[0] === 1, bytes: all.subarray(1) })
        break
      }
      default:
        this.#fail(`frame of unknown type ${JSON.stringify(type)}`)
    }
  }

  #push(output: ShimOutput): void {
    this.#outputs.push(output)
    this.#wake()
  }

  #fail(what: string, cause?: unknown): void {
    this.#end(new CedanaError('BUG', `shim sent nonsense: ${what}`, { cause }))
    this.#socket.destroy()
  }

  #end(cause: Error | undefined): void {
    this.#closed ??= cause instanceof CedanaError ? cause : gone(cause)
    for (const waiter of [...this.#statusWaiters.splice(0), ...this.#pendingWaiters.splice(0)]) waiter.reject(this.#closed)
    this.#wake()
  }
}

/** How the job of this shim ended, as soon as it has; undefined when its shim was killed and nobody knows. */
export async function waitForShimExit(directory: string): Promise<ExitStatus | undefined> {
  try {
    const exit = await (await ShimConnection.open(directory)).exit()
    if (exit !== undefined) return exit
  } catch (error) {
    if (!(error instanceof CedanaError) || error.code !== 'JOB_NOT_RUNNING') throw error
  }
  return (await readShimExit(directory))?.exit
}

function openDirectory(path: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_DIRECTORY)
  } catch (error) {
    throw noShim(path, error)
  }
}

function noShim(directory: string, cause: unknown): CedanaError {
  const { code = '' } = cause as NodeJS.ErrnoException
  const isGone = ['ENOENT', 'ECONNREFUSED'].includes(code)
  return new CedanaError(isGone ? 'JOB_NOT_RUNNING' : 'NOT_ATTACHABLE', `no shim answers in ${directory}`, {
    cause,
    detail: { errnoName: code },
  })
}

function gone(cause: Error | undefined): CedanaError {
  return new CedanaError('JOB_NOT_RUNNING', 'the shim of the job has closed the connection', { cause })
}

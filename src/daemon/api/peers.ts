/** Who is behind a call: the kernel's word about its connection, or a token. Nothing in the request itself counts. */
import { timingSafeEqual, createHash } from 'node:crypto'
import type { Socket } from 'node:net'
import type { Metadata } from '@grpc/grpc-js'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Caller } from '../../plugins/contract/job.js'
import { bearer, TOKEN_KEY } from './token.js'

/** What of a call is needed here. */
export interface IncomingCall {
  readonly metadata: Metadata
  getPeer(): string
}

const ROOT: Caller = { uid: 0, gid: 0, groups: [0], pid: 0 }
const digest = (text: string): Buffer => createHash('sha256').update(text).digest()

export class Peers {
  private readonly callers = new Map<string, Caller | 'by-token'>()
  private next = 0

  /** `token`: what callers without credentials present; undefined: there are none. */
  constructor(private readonly token: string | undefined) {}

  /**
   * gRPC names the peer of a call by the `remoteAddress` of its socket, which a unix socket lacks: each connection gets one of its own.
   * No name is given twice, so a call can never be taken for another connection's.
   */
  admit(socket: Socket, caller: Caller | 'by-token'): void {
    const name = `peer-${this.next++}`
    Object.defineProperty(socket, 'remoteAddress', { value: name })
    Object.defineProperty(socket, 'remotePort', { value: undefined })
    this.callers.set(name, caller)
    socket.once('close', () => this.callers.delete(name))
  }

  /** Throws PERMISSION_DENIED for a call that nobody vouches for. To be asked when the call begins: later its connection may be gone. */
  callerOf(call: IncomingCall): Caller {
    const caller = this.callers.get(call.getPeer())
    if (caller === undefined) throw new CedanaError('PERMISSION_DENIED', 'the connection of this call is gone')
    return caller === 'by-token' ? this.bearerOf(call) : caller
  }

  private bearerOf({ metadata }: IncomingCall): Caller {
    const [shown] = metadata.get(TOKEN_KEY)
    const isRight = this.token !== undefined && typeof shown === 'string' && timingSafeEqual(digest(shown), digest(bearer(this.token)))
    if (isRight) return ROOT
    throw new CedanaError('PERMISSION_DENIED', shown === undefined ? 'callers over tcp must present a token' : 'wrong token', {
      hint: 'set tcp.token_file to the token of the daemon',
    })
  }
}

/** containerd's own API, as far as it is used here: gRPC on its socket, in one of its namespaces. */
import { CedanaError, type ErrorCode } from '../contract/errors.js'
import { CallFailed, Channel, type ClientCall, type Method, STATUS, whole } from '../contract/grpc.js'

/** As containerd's own clients allow: a list of many containers is more than gRPC's usual 4 MiB. */
const MAX_MESSAGE_BYTES = 16 * 2 ** 20

export interface Place {
  /** Path of the socket. */
  readonly address: string
  readonly namespace: string
}

const CODES: Readonly<Record<number, ErrorCode>> = {
  [STATUS.INVALID_ARGUMENT]: 'BAD_OPTIONS',
  [STATUS.PERMISSION_DENIED]: 'PERMISSION_DENIED',
  [STATUS.DEADLINE_EXCEEDED]: 'TIMEOUT',
  [STATUS.CANCELLED]: 'CANCELLED',
  [STATUS.RESOURCE_EXHAUSTED]: 'NO_SPACE',
}

export const unreachable = ({ address }: Pick<Place, 'address'>, cause?: unknown): CedanaError =>
  new CedanaError('HOST_UNFIT', `containerd cannot be reached at ${address}`, {
    cause,
    hint: 'start it, or name its socket with --address',
    detail: { grpc: STATUS.UNAVAILABLE },
  })

/** `detail.grpc`: the canonical status code, for whoever expects one. */
function errorOf(thrown: unknown, { address }: Place, signal: AbortSignal | undefined): CedanaError {
  const reason: unknown = signal?.aborted === true ? signal.reason : undefined
  if (reason instanceof CedanaError) return reason
  if (!(thrown instanceof CallFailed)) return CedanaError.from(thrown)
  const { status, details } = thrown
  if (status === STATUS.UNAVAILABLE) return unreachable({ address }, thrown)
  // Of its own disk, which it tells of among all that has no code of its own.
  const [full] = /(?:\w+ \S+: )?(?:no space left on device|disk quota exceeded)/.exec(details) ?? []
  if (full !== undefined)
    return new CedanaError('NO_SPACE', `containerd: ${full}`, {
      cause: thrown,
      hint: 'free some space there: it is the disk of containerd',
      detail: { grpc: status, containerd: details },
    })
  return new CedanaError(CODES[status] ?? 'HOST_UNFIT', `containerd: ${details}`, { cause: thrown, detail: { grpc: status } })
}

const isStatus =
  (code: number) =>
  (thrown: unknown): boolean =>
    thrown instanceof CedanaError && thrown.detail['grpc'] === code
export const isNotFound = isStatus(STATUS.NOT_FOUND)
export const isThereAlready = isStatus(STATUS.ALREADY_EXISTS)
export const isUnreachable = isStatus(STATUS.UNAVAILABLE)

/** Undefined for what containerd does not know. */
export const found = async <T>(asked: Promise<T>): Promise<T | undefined> =>
  asked.catch((thrown: unknown) => {
    if (isNotFound(thrown)) return undefined
    throw thrown
  })

/** A connection, closed by whoever opened it. Nothing is sent before the first call. */
export class Containerd implements Disposable {
  readonly #channel: Channel
  readonly #headers: Record<string, string>

  constructor(
    readonly place: Place,
    /** Aborting cancels every call under way. */
    private readonly signal?: AbortSignal,
  ) {
    this.#channel = new Channel({ path: place.address }, { maxMessageBytes: MAX_MESSAGE_BYTES })
    this.#headers = { 'containerd-namespace': place.namespace }
  }

  /** What is made from now on belongs to this lease as well, and is not collected while that is there. Undefined: to none. */
  useLease(id: string | undefined): void {
    if (id === undefined) delete this.#headers['containerd-lease']
    else this.#headers['containerd-lease'] = id
  }

  [Symbol.dispose](): void {
    this.#channel.close()
  }

  /** Fields that are not given are as if they had not been set. */
  async call<Request, Response>(method: Method<Request, Response>, request: Partial<Request>): Promise<Response> {
    try {
      const call = await this.#open(method)
      call.finish(method.requestSerialize(whole(method, request)))
      return method.responseDeserialize(await call.answer())
    } catch (thrown) {
      throw errorOf(thrown, this.place, this.signal)
    }
  }

  /** Messages that come one by one. Leaving the loop ends the call. */
  async *stream<Request, Response>(method: Method<Request, Response>, request: Partial<Request>): AsyncGenerator<Response> {
    try {
      const call = await this.#open(method)
      call.finish(method.requestSerialize(whole(method, request)))
      for await (const message of call.messages()) yield method.responseDeserialize(message)
    } catch (thrown) {
      throw errorOf(thrown, this.place, this.signal)
    }
  }

  /** Sends what `requests` makes, one after the other as fast as they are taken, and answers the last reply. */
  async upload<Request, Response>(method: Method<Request, Response>, requests: AsyncIterable<Partial<Request>>): Promise<Response> {
    try {
      const call = await this.#open(method)
      const answer = call.answer()
      // The loop below ends at the same failure, and it is this one that says what it was.
      answer.catch(() => undefined)
      try {
        for await (const request of requests) {
          if (call.isOver) break
          if (!call.write(method.requestSerialize(whole(method, request)))) await call.drained()
        }
      } catch (thrown) {
        call.cancel()
        throw thrown
      }
      call.finish()
      return method.responseDeserialize(await answer)
    } catch (thrown) {
      throw errorOf(thrown, this.place, this.signal)
    }
  }

  #open({ path }: Pick<Method<unknown, unknown>, 'path'>): Promise<ClientCall> {
    return this.#channel.open(path, { limitMs: 0, signal: this.signal, headers: this.#headers })
  }
}

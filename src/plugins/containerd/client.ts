/** containerd's own API, as far as it is used here: gRPC on its socket, in one of its namespaces. */
import { Client, credentials, Metadata, type MethodDefinition, type ServiceError, status } from '@grpc/grpc-js'
import { CedanaError, type ErrorCode } from '../contract/errors.js'

/** What each call is about when there is nothing to send: every field as protobuf leaves it out. */
const EMPTY = Buffer.alloc(0)
/** As containerd's own clients allow: a list of many containers is more than gRPC's usual 4 MiB. */
const MAX_MESSAGE_BYTES = 16 * 2 ** 20

export interface Place {
  /** Path of the socket. */
  readonly address: string
  readonly namespace: string
}

const CODES: Readonly<Partial<Record<status, ErrorCode>>> = {
  [status.PERMISSION_DENIED]: 'PERMISSION_DENIED',
  [status.DEADLINE_EXCEEDED]: 'TIMEOUT',
  [status.CANCELLED]: 'CANCELLED',
  [status.RESOURCE_EXHAUSTED]: 'NO_SPACE',
}

export const unreachable = ({ address }: Pick<Place, 'address'>, cause?: unknown): CedanaError =>
  new CedanaError('HOST_UNFIT', `containerd cannot be reached at ${address}`, {
    cause,
    hint: 'start it, or name its socket with --address',
    detail: { grpc: status.UNAVAILABLE },
  })

/** `detail.grpc`: the canonical status code, for whoever expects one. */
function errorOf(thrown: ServiceError, { address }: Place, signal: AbortSignal | undefined): CedanaError {
  const reason: unknown = signal?.aborted === true ? signal.reason : undefined
  if (reason instanceof CedanaError) return reason
  if (thrown.code === status.UNAVAILABLE) return unreachable({ address }, thrown)
  return new CedanaError(CODES[thrown.code] ?? 'HOST_UNFIT', `containerd: ${thrown.details}`, {
    cause: thrown,
    detail: { grpc: thrown.code },
  })
}

const isStatus =
  (code: status) =>
  (thrown: unknown): boolean =>
    thrown instanceof CedanaError && thrown.detail['grpc'] === code
export const isNotFound = isStatus(status.NOT_FOUND)
export const isThereAlready = isStatus(status.ALREADY_EXISTS)
export const isUnreachable = isStatus(status.UNAVAILABLE)

/** Undefined for what containerd does not know. */
export const found = async <T>(asked: Promise<T>): Promise<T | undefined> =>
  asked.catch((thrown: unknown) => {
    if (isNotFound(thrown)) return undefined
    throw thrown
  })

/** The definition of a method, as generated: `TasksService.get`. */
type Method<Request, Response> = Pick<
  MethodDefinition<Request, Response>,
  'path' | 'requestSerialize' | 'requestDeserialize' | 'responseDeserialize'
>

/** A connection, closed by whoever opened it. Nothing is sent before the first call. */
export class Containerd implements Disposable {
  readonly #client: Client
  readonly #metadata = new Metadata()

  constructor(
    readonly place: Place,
    /** Aborting cancels every call under way. */
    private readonly signal?: AbortSignal,
  ) {
    this.#client = new Client(`unix:${place.address}`, credentials.createInsecure(), {
      'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
      'grpc.use_local_subchannel_pool': 1,
    })
    this.#metadata.set('containerd-namespace', place.namespace)
  }

  /** What is made from now on belongs to this lease as well, and is not collected while that is there. Undefined: to none. */
  useLease(id: string | undefined): void {
    if (id === undefined) this.#metadata.remove('containerd-lease')
    else this.#metadata.set('containerd-lease', id)
  }

  [Symbol.dispose](): void {
    this.#client.close()
  }

  /** Fields that are not given are as if they had not been set. */
  call<Request, Response>(method: Method<Request, Response>, request: Partial<Request>): Promise<Response> {
    return new Promise((resolve, reject) => {
      const call = this.#client.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        whole(method, request),
        this.#metadata,
        (error, response) => {
          stopListening()
          if (error) reject(errorOf(error, this.place, this.signal))
          else resolve(response as Response)
        },
      )
      const stopListening = this.#cancels(call)
    })
  }

  /** Messages that come one by one. Leaving the loop ends the call. */
  async *stream<Request, Response>(method: Method<Request, Response>, request: Partial<Request>): AsyncGenerator<Response> {
    const call = this.#client.makeServerStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      whole(method, request),
      this.#metadata,
    )
    const stopListening = this.#cancels(call)
    try {
      for await (const message of call) yield message as Response
    } catch (thrown) {
      throw errorOf(thrown as ServiceError, this.place, this.signal)
    } finally {
      stopListening()
      call.cancel()
    }
  }

  /** Sends what `requests` makes, one after the other as fast as they are taken, and answers the last reply. */
  async upload<Request, Response>(method: Method<Request, Response>, requests: AsyncIterable<Partial<Request>>): Promise<Response> {
    const call = this.#client.makeBidiStreamRequest(method.path, method.requestSerialize, method.responseDeserialize, this.#metadata)
    const stopListening = this.#cancels(call)
    const replies = (async () => {
      let last: Response | undefined
      for await (const reply of call) last = reply as Response
      return last
    })()
    // The loop below ends at the same failure, and it is this one that says what it was.
    replies.catch(() => undefined)
    try {
      for await (const request of requests) {
        if (call.write(whole(method, request))) continue
        await Promise.race([new Promise((resolve) => call.once('drain', resolve)), replies])
      }
      call.end()
      const last = await replies
      if (last === undefined) throw new CedanaError('HOST_UNFIT', `containerd answered nothing to ${method.path}`)
      return last
    } catch (thrown) {
      throw thrown instanceof CedanaError ? thrown : errorOf(thrown as ServiceError, this.place, this.signal)
    } finally {
      stopListening()
      call.cancel()
    }
  }

  #cancels(call: { cancel(): void }): () => void {
    const { signal } = this
    if (!signal) return () => undefined
    const cancel = (): void => {
      call.cancel()
    }
    signal.addEventListener('abort', cancel)
    if (signal.aborted) cancel()
    return () => {
      signal.removeEventListener('abort', cancel)
    }
  }
}

const whole = <Request, Response>(method: Method<Request, Response>, request: Partial<Request>): Request => ({
  ...method.requestDeserialize(EMPTY),
  ...request,
})

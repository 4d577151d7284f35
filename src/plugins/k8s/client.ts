/** The runtime service of the CRI, which kubelets talk to: gRPC on the socket of containerd or CRI-O. */
import { Client, credentials, Metadata, type MethodDefinition, type ServiceError, status } from '@grpc/grpc-js'
import { CedanaError, type ErrorCode } from '../contract/errors.js'
import type { Host } from '../contract/host.js'

const EMPTY = Buffer.alloc(0)
/** Of a node with many pods a list is more than gRPC's usual 4 MiB. */
const MAX_MESSAGE_BYTES = 16 * 2 ** 20

const CODES: Readonly<Partial<Record<status, ErrorCode>>> = {
  [status.NOT_FOUND]: 'NO_SUCH_CONTAINER',
  [status.PERMISSION_DENIED]: 'PERMISSION_DENIED',
  [status.DEADLINE_EXCEEDED]: 'TIMEOUT',
  [status.CANCELLED]: 'CANCELLED',
}
/** Not to be reached, or there without a CRI. */
const UNFIT: Readonly<Partial<Record<status, { readonly what: string; readonly hint: string }>>> = {
  [status.UNAVAILABLE]: { what: 'no container runtime can be reached at', hint: 'name its socket with --address' },
  [status.UNIMPLEMENTED]: { what: 'there is no CRI at', hint: 'of containerd: take cri out of disabled_plugins in its config.toml' },
}

function errorOf(thrown: ServiceError, address: string, signal: AbortSignal): CedanaError {
  const reason: unknown = signal.aborted ? signal.reason : undefined
  if (reason instanceof CedanaError) return reason
  const unfit = UNFIT[thrown.code]
  if (unfit) return new CedanaError('HOST_UNFIT', `${unfit.what} ${address}`, { cause: thrown, hint: unfit.hint })
  return new CedanaError(CODES[thrown.code] ?? 'HOST_UNFIT', `container runtime: ${thrown.details}`, { cause: thrown })
}

type Method<Request, Response> = Pick<
  MethodDefinition<Request, Response>,
  'path' | 'requestSerialize' | 'requestDeserialize' | 'responseDeserialize'
>

/** As kubelets write it: `unix:///run/containerd/containerd.sock`, or the path alone. */
export const socketPath = (address: string): string => address.replace(/^unix:\/\//, '')

/** A connection for one verb, closed by whoever opened it. */
export class Cri implements Disposable {
  readonly #client: Client
  readonly #address: string

  constructor(
    private readonly host: Host,
    address: string,
  ) {
    this.#address = socketPath(address)
    this.#client = new Client(`unix:${this.#address}`, credentials.createInsecure(), {
      'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
      'grpc.use_local_subchannel_pool': 1,
    })
  }

  [Symbol.dispose](): void {
    this.#client.close()
  }

  /** Fields that are not given are as if they had not been set. */
  call<Request, Response>(method: Method<Request, Response>, request: Partial<Request>): Promise<Response> {
    const { signal } = this.host
    return new Promise((resolve, reject) => {
      const whole = { ...method.requestDeserialize(EMPTY), ...request }
      const { path, requestSerialize, responseDeserialize } = method
      const call = this.#client.makeUnaryRequest(path, requestSerialize, responseDeserialize, whole, new Metadata(), (error, response) => {
        signal.removeEventListener('abort', cancel)
        if (error) reject(errorOf(error, this.#address, signal))
        else resolve(response as Response)
      })
      const cancel = (): void => {
        call.cancel()
      }
      signal.addEventListener('abort', cancel)
      if (signal.aborted) cancel()
    })
  }
}

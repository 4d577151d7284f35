/** The runtime service of the CRI, which kubelets talk to: gRPC on the socket of containerd or CRI-O. */
import { CedanaError, type ErrorCode } from '../contract/errors.js'
import { CallFailed, Channel, type Method, STATUS, whole } from '../contract/grpc.js'
import type { Host } from '../contract/host.js'

/** Of a node with many pods a list is more than gRPC's usual 4 MiB. */
const MAX_MESSAGE_BYTES = 16 * 2 ** 20

const CODES: Readonly<Record<number, ErrorCode>> = {
  [STATUS.NOT_FOUND]: 'NO_SUCH_CONTAINER',
  [STATUS.PERMISSION_DENIED]: 'PERMISSION_DENIED',
  [STATUS.DEADLINE_EXCEEDED]: 'TIMEOUT',
  [STATUS.CANCELLED]: 'CANCELLED',
}
/** Not to be reached, or there without a CRI. */
const UNFIT: Readonly<Record<number, { readonly what: string; readonly hint: string }>> = {
  [STATUS.UNAVAILABLE]: { what: 'no container runtime can be reached at', hint: 'name its socket with --address' },
  [STATUS.UNIMPLEMENTED]: { what: 'there is no CRI at', hint: 'of containerd: take cri out of disabled_plugins in its config.toml' },
}

function errorOf(thrown: unknown, address: string, signal: AbortSignal): CedanaError {
  const reason: unknown = signal.aborted ? signal.reason : undefined
  if (reason instanceof CedanaError) return reason
  if (!(thrown instanceof CallFailed)) return CedanaError.from(thrown)
  const { status, details } = thrown
  const unfit = UNFIT[status]
  if (unfit) return new CedanaError('HOST_UNFIT', `${unfit.what} ${address}`, { cause: thrown, hint: unfit.hint })
  return new CedanaError(CODES[status] ?? 'HOST_UNFIT', `container runtime: ${details}`, { cause: thrown })
}

/** As kubelets write it: `unix:///run/containerd/containerd.sock`, or the path alone. */
export const socketPath = (address: string): string => address.replace(/^unix:\/\//, '')

/** A connection for one verb, closed by whoever opened it. */
export class Cri implements Disposable {
  readonly #channel: Channel
  readonly #address: string

  constructor(
    private readonly host: Host,
    address: string,
  ) {
    this.#address = socketPath(address)
    this.#channel = new Channel({ path: this.#address }, { maxMessageBytes: MAX_MESSAGE_BYTES })
  }

  [Symbol.dispose](): void {
    this.#channel.close()
  }

  /** Fields that are not given are as if they had not been set. */
  async call<Request, Response>(method: Method<Request, Response>, request: Partial<Request>): Promise<Response> {
    const { signal } = this.host
    try {
      const call = await this.#channel.open(method.path, { limitMs: 0, signal })
      call.finish(method.requestSerialize(whole(method, request)))
      return method.responseDeserialize(await call.answer())
    } catch (thrown) {
      throw errorOf(thrown, this.#address, signal)
    }
  }
}

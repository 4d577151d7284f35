/** The one place where errors meet the wire: CedanaError ↔ gRPC status, with the whole error as JSON in a trailer. */
import { CedanaError, ERRORS, type ErrorCode } from '../../plugins/contract/errors.js'
import { STATUS } from '../../plugins/contract/grpc.js'
import { plain } from './codec.js'

export const TRAILER = 'cedana-error-bin'
/** gRPC implementations refuse headers from 8 KiB on; base64 adds a third. */
const MAX_TRAILER = 4096
const MAX_MESSAGE = 1024

interface WireError {
  readonly code: string
  readonly message: string
  readonly hint?: string | undefined
  readonly detail?: Readonly<Record<string, unknown>>
  readonly suppressed?: readonly WireError[]
}

const wellFormed = (text: string): string => Buffer.from(text).toString()
const short = (text: string): string => (text.length > MAX_MESSAGE ? `${text.slice(0, MAX_MESSAGE)} …` : text)

const toWire = (error: CedanaError): WireError => ({
  code: error.code,
  message: error.message,
  hint: error.hint,
  detail: plain(error.detail),
  suppressed: error.suppressed.map(toWire),
})

/** As much of the error as fits: what follows from it goes first, then its details. */
function encode(error: CedanaError): Buffer {
  const whole = toWire(error)
  const { code } = whole
  const brief = { code, message: short(error.message), hint: error.hint === undefined ? undefined : short(error.hint) }
  const candidates: WireError[] = [whole, { ...whole, suppressed: [] }, brief]
  const fitting = candidates.map((one) => Buffer.from(JSON.stringify(one))).find((one) => one.length <= MAX_TRAILER)
  return fitting ?? Buffer.from(JSON.stringify({ code, message: short(error.message).slice(0, MAX_MESSAGE / 2) }))
}

export interface Status {
  readonly name: keyof typeof STATUS
  readonly details: string
  /** Value of the trailer. */
  readonly error: Buffer
}

export const toStatus = (error: CedanaError): Status => ({
  name: ERRORS[error.code].grpc,
  details: wellFormed(short(error.message)),
  error: encode(error),
})

const isCode = (code: unknown): code is ErrorCode => typeof code === 'string' && Object.hasOwn(ERRORS, code)

function rebuild(wire: WireError, cause: unknown): CedanaError {
  const known = isCode(wire.code)
  const error = new CedanaError(known ? wire.code : 'BUG', known ? wire.message : `${wire.code}: ${wire.message}`, {
    cause,
    detail: wire.detail ?? {},
    ...(wire.hint === undefined ? {} : { hint: wire.hint }),
  })
  error.suppressed.push(...(wire.suppressed ?? []).map((one) => rebuild(one, undefined)))
  return error
}

/** What a failed call says of its end. */
export interface Failure {
  readonly status: number
  readonly details: string
  readonly trailers: Readonly<Record<string, string | readonly string[] | undefined>>
}

function sent({ trailers }: Failure): WireError | undefined {
  const value = trailers[TRAILER]
  if (typeof value !== 'string') return undefined
  try {
    return JSON.parse(Buffer.from(value, 'base64').toString()) as WireError
  } catch {
    return undefined
  }
}

/** Statuses that gRPC itself makes, without our trailer. */
const BARE: Readonly<Record<number, ErrorCode>> = {
  [STATUS.CANCELLED]: 'CANCELLED',
  [STATUS.DEADLINE_EXCEEDED]: 'TIMEOUT',
  [STATUS.UNAVAILABLE]: 'DAEMON_UNREACHABLE',
  [STATUS.UNIMPLEMENTED]: 'VERB_UNSUPPORTED',
  [STATUS.PERMISSION_DENIED]: 'PERMISSION_DENIED',
  [STATUS.UNAUTHENTICATED]: 'PERMISSION_DENIED',
  [STATUS.INVALID_ARGUMENT]: 'BAD_OPTIONS',
}
const PLAIN_WORDS: Readonly<Partial<Record<ErrorCode, string>>> = {
  CANCELLED: 'operation cancelled',
  TIMEOUT: 'no answer from the daemon in time',
  VERB_UNSUPPORTED: 'the daemon does not know this request: it is of another version',
}

/** The error that the daemon threw, or what gRPC says when the daemon could not say anything. */
export function fromStatus(failure: Failure): CedanaError {
  const wire = sent(failure)
  if (wire !== undefined) return rebuild(wire, failure)
  const code = BARE[failure.status] ?? 'BUG'
  return new CedanaError(code, PLAIN_WORDS[code] ?? failure.details, { cause: failure })
}

/** The one place where errors meet the wire: CedanaError ↔ gRPC status, with the whole error as JSON in a trailer. */
import { Metadata, status, type ServiceError, type StatusObject } from '@grpc/grpc-js'
import { CedanaError, ERRORS, type ErrorCode } from '../../plugins/contract/errors.js'
import { plain } from './codec.js'

const TRAILER = 'cedana-error-bin'
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

export function toStatus(error: CedanaError): StatusObject {
  const metadata = new Metadata()
  metadata.set(TRAILER, encode(error))
  return { code: status[ERRORS[error.code].grpc], details: wellFormed(short(error.message)), metadata }
}

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

function trailer(failure: ServiceError): WireError | undefined {
  const [bytes] = failure.metadata.get(TRAILER)
  if (!Buffer.isBuffer(bytes)) return undefined
  try {
    return JSON.parse(bytes.toString()) as WireError
  } catch {
    return undefined
  }
}

/** Statuses that gRPC itself makes, without our trailer. */
const BARE: Readonly<Partial<Record<status, ErrorCode>>> = {
  [status.CANCELLED]: 'CANCELLED',
  [status.DEADLINE_EXCEEDED]: 'TIMEOUT',
  [status.UNAVAILABLE]: 'DAEMON_UNREACHABLE',
  [status.UNIMPLEMENTED]: 'VERB_UNSUPPORTED',
  [status.PERMISSION_DENIED]: 'PERMISSION_DENIED',
  [status.UNAUTHENTICATED]: 'PERMISSION_DENIED',
  [status.INVALID_ARGUMENT]: 'BAD_OPTIONS',
}
const PLAIN_WORDS: Readonly<Partial<Record<ErrorCode, string>>> = {
  CANCELLED: 'operation cancelled',
  TIMEOUT: 'no answer from the daemon in time',
  VERB_UNSUPPORTED: 'the daemon does not know this request: it is of another version',
}

/** The error that the daemon threw, or what gRPC says when the daemon could not say anything. */
export function fromStatus(failure: ServiceError): CedanaError {
  const wire = trailer(failure)
  if (wire !== undefined) return rebuild(wire, failure)
  const code = BARE[failure.code] ?? 'BUG'
  return new CedanaError(code, PLAIN_WORDS[code] ?? failure.details, { cause: failure })
}

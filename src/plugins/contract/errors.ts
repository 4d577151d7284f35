import { getSystemErrorMap } from 'node:util'

/**
 * Every way cedana can fail, in one table: the canonical gRPC status it becomes on the wire, and whether asking again later may help.
 * The code is the contract; the message is for people.
 */
export const ERRORS = {
  BAD_OPTIONS: { grpc: 'INVALID_ARGUMENT', retry: false },
  NO_SUCH_JOB: { grpc: 'NOT_FOUND', retry: false },
  NO_SUCH_PROCESS: { grpc: 'NOT_FOUND', retry: false },
  NO_SUCH_CONTAINER: { grpc: 'NOT_FOUND', retry: false },
  NO_SUCH_CHECKPOINT: { grpc: 'NOT_FOUND', retry: false },
  NO_SUCH_PLUGIN: { grpc: 'UNIMPLEMENTED', retry: false },
  NO_SUCH_PACKAGE: { grpc: 'NOT_FOUND', retry: false },
  NOT_ATTACHABLE: { grpc: 'NOT_FOUND', retry: false },
  JOB_EXISTS: { grpc: 'ALREADY_EXISTS', retry: false },
  JOB_BUSY: { grpc: 'ABORTED', retry: true },
  JOB_NOT_RUNNING: { grpc: 'FAILED_PRECONDITION', retry: false },
  JOB_RUNNING: { grpc: 'FAILED_PRECONDITION', retry: false },
  PERMISSION_DENIED: { grpc: 'PERMISSION_DENIED', retry: false },
  PLUGIN_FAILED: { grpc: 'INTERNAL', retry: false },
  VERB_UNSUPPORTED: { grpc: 'UNIMPLEMENTED', retry: false },
  FORMAT_UNSUPPORTED: { grpc: 'UNIMPLEMENTED', retry: false },
  HOST_UNFIT: { grpc: 'FAILED_PRECONDITION', retry: false },
  TARGET_UNFIT: { grpc: 'FAILED_PRECONDITION', retry: false },
  NO_SPACE: { grpc: 'RESOURCE_EXHAUSTED', retry: true },
  START_FAILED: { grpc: 'INTERNAL', retry: false },
  GPU_FAILED: { grpc: 'INTERNAL', retry: false },
  CRIU_DUMP_FAILED: { grpc: 'INTERNAL', retry: false },
  CRIU_RESTORE_FAILED: { grpc: 'INTERNAL', retry: false },
  CHECKPOINT_EXISTS: { grpc: 'ALREADY_EXISTS', retry: false },
  IMAGE_CORRUPT: { grpc: 'DATA_LOSS', retry: false },
  STORAGE_FAILED: { grpc: 'UNAVAILABLE', retry: true },
  DAEMON_UNREACHABLE: { grpc: 'UNAVAILABLE', retry: true },
  TIMEOUT: { grpc: 'DEADLINE_EXCEEDED', retry: true },
  CANCELLED: { grpc: 'CANCELLED', retry: true },
  BUG: { grpc: 'INTERNAL', retry: false },
} as const satisfies Record<string, { readonly grpc: string; readonly retry: boolean }>

export type ErrorCode = keyof typeof ERRORS

export interface ErrorContext {
  /** What led to it. Kept for logs; never shown to the user by itself. */
  readonly cause?: unknown
  /** Facts a program may want: pid, path, the first error lines of CRIU's log … */
  readonly detail?: Readonly<Record<string, unknown>>
  /** What to do about it: one sentence, imperative, no full stop. */
  readonly hint?: string
}

/**
 * The one error class. Message: lower case, no full stop, names the thing (`job train not found`).
 * Throw it with `cause`; test `code`, never the text.
 */
export class CedanaError extends Error {
  override readonly name = 'CedanaError'
  readonly detail: Readonly<Record<string, unknown>>
  readonly hint: string | undefined
  /** Failures of the clean-up that followed this one. */
  readonly suppressed: CedanaError[] = []

  constructor(
    readonly code: ErrorCode,
    message: string,
    context: ErrorContext = {},
  ) {
    super(message, context.cause === undefined ? undefined : { cause: context.cause })
    this.detail = context.detail ?? {}
    this.hint = context.hint
  }

  /** Whatever was thrown, as a CedanaError; anything unknown is a BUG that keeps its cause. */
  static from(thrown: unknown): CedanaError {
    if (thrown instanceof CedanaError) return thrown
    if (isAlike(thrown)) return new CedanaError(thrown.code, thrown.message, { cause: thrown, detail: thrown.detail, ...hintOf(thrown) })
    if (thrown instanceof Error && thrown.name === 'AbortError')
      return new CedanaError('CANCELLED', 'operation cancelled', { cause: thrown })
    if (isOfFullDisk(thrown))
      return new CedanaError('NO_SPACE', `${reasonOf(thrown)}: ${thrown.syscall ?? 'write'} ${thrown.path ?? ''}`.trimEnd(), {
        cause: thrown,
        hint: 'free some space there',
      })
    const message = thrown instanceof Error ? thrown.message : String(thrown)
    return new CedanaError('BUG', message, { cause: thrown })
  }
}

/** Why the system refused something, in its own words: `no such file or directory`. */
export function reasonOf(thrown: unknown): string {
  const { errno, message } = thrown as NodeJS.ErrnoException
  return (errno === undefined ? undefined : getSystemErrorMap().get(-Math.abs(errno))?.[1]) ?? message
}

const hintOf = ({ hint }: CedanaError): { readonly hint?: string } => (hint === undefined ? {} : { hint })

/** No bug, whoever has met with it unprepared. */
const isOfFullDisk = (thrown: unknown): thrown is NodeJS.ErrnoException =>
  thrown instanceof Error && 'code' in thrown && (thrown.code === 'ENOSPC' || thrown.code === 'EDQUOT')

/** One of a plugin that carries a copy of this file. */
const isAlike = (thrown: unknown): thrown is CedanaError =>
  thrown instanceof Error && thrown.name === 'CedanaError' && 'code' in thrown && String(thrown.code) in ERRORS

/** Failed system calls, of Node or of the addon, as what they mean for a checkpoint. */
import { getSystemErrorMap } from 'node:util'
import { CedanaError, type ErrorCode } from '../../plugins/contract/errors.js'

const TEXTS: ReadonlyMap<string, string> = new Map([
  ...getSystemErrorMap().values(),
  ['EBADMSG', 'the data is damaged'],
  ['EDQUOT', 'disk quota exceeded'],
])
const MEANINGS: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: 'NO_SPACE',
  EDQUOT: 'NO_SPACE',
  EFBIG: 'NO_SPACE',
  EACCES: 'PERMISSION_DENIED',
  EPERM: 'PERMISSION_DENIED',
  EROFS: 'PERMISSION_DENIED',
  ELOOP: 'PERMISSION_DENIED',
  EBADMSG: 'IMAGE_CORRUPT',
  ECANCELED: 'CANCELLED',
}
type Hints = Readonly<Partial<Record<ErrorCode, string>>>
const HINTS: Hints = {
  NO_SPACE: 'free some space, choose another directory with --dir, or compress with --compression',
  PERMISSION_DENIED: 'name a file or directory that you may use',
}

/** The errno name of a failed call: `ENOENT`. */
export function errnoOf(thrown: unknown): string | undefined {
  const code = thrown instanceof Error ? (thrown as { code?: unknown }).code : undefined
  return typeof code === 'string' && /^E[A-Z0-9]+$/.test(code) ? code : undefined
}

/** `attempted`: what was being done, as in `write /ckpt/x` (`cannot write /ckpt/x: no space left on device`). CedanaErrors pass through. */
export function failure(thrown: unknown, attempted: string, hints: Hints = HINTS): CedanaError {
  if (thrown instanceof CedanaError) return thrown
  const errno = errnoOf(thrown)
  if (errno === undefined) return CedanaError.from(thrown)
  const code = MEANINGS[errno] ?? 'STORAGE_FAILED'
  const hint = hints[code]
  return new CedanaError(code, `cannot ${attempted}: ${TEXTS.get(errno) ?? errno}`, {
    cause: thrown,
    detail: { errno },
    ...(hint && { hint }),
  })
}

/** Runs `work`; its failure says what was attempted. */
export async function attempt<T>(attempted: string, work: () => Promise<T> | T): Promise<T> {
  try {
    return await work()
  } catch (thrown) {
    throw failure(thrown, attempted)
  }
}

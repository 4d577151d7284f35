/** Turns CRIU's refusal into what the user can use: the first real error of its log in plain words, those lines, and where the log is kept. */
import { readFile } from 'node:fs/promises'
import { CedanaError } from '../../plugins/contract/errors.js'
import { explainCriuLog } from '../images/explain.js'

interface Evidence {
  /** Directory that has the log now; undefined when there is none to read. */
  readonly directoryFd: number | undefined
  readonly name: string
  /** Where the log will be found afterwards. */
  readonly kept: string
  /** What broke the page server, which CRIU knows only as a closed socket. */
  readonly pages: CedanaError | undefined
}

export async function criuFailure(thrown: unknown, evidence: Evidence): Promise<CedanaError> {
  const error = CedanaError.from(thrown)
  if (evidence.pages && evidence.pages.code !== 'BUG' && error.code !== 'CANCELLED') return evidence.pages
  if (error.code !== 'CRIU_DUMP_FAILED' && error.code !== 'CRIU_RESTORE_FAILED') return error
  const text = evidence.directoryFd === undefined ? '' : await readFile(`/proc/self/fd/${evidence.directoryFd}/${evidence.name}`, 'utf8').catch(() => '')
  if (text === '') return error
  const { lines, cause } = explainCriuLog(text)
  const what = error.code === 'CRIU_DUMP_FAILED' ? 'dump' : 'restore'
  return new CedanaError(error.code, `criu ${what} failed: ${cause?.message ?? lines[0] ?? error.message}`, {
    cause: error,
    hint: cause?.hint ?? `read the log ${evidence.kept}`,
    detail: { ...error.detail, criu: lines, log: evidence.kept, ...(cause ? { causeId: cause.id } : {}) },
  })
}

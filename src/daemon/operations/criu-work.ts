/**
 * CRIU's work directory, private to the daemon and gone after the operation. Of a failed one the log is kept, and turned into what the user can use:
 * the first real error in plain words, those lines, and where the log is.
 */
import { closeSync, mkdtempSync, openSync, readFileSync } from 'node:fs'
import { copyFile, readdir, readFile, rm, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { CedanaError } from '../../plugins/contract/errors.js'
import { removeDirectory } from '../host/mounts.js'
import { readImage, STATS } from '../images/criu-images.js'
import { explainCriuLog } from '../images/explain.js'
import { ensureDirectories, type Environment, logsDirectory, workDirectory } from './environment.js'

export const CRIU_RESTORE_LOG = 'criu-restore.log'
const BROKEN: readonly string[] = ['ECONNRESET', 'EPIPE', 'ECANCELED', 'EPROTO']

export class CriuWork {
  private constructor(
    readonly directory: string,
    readonly fd: number,
    private readonly logName: string,
    /** Where logs of failures are kept, and how many. */
    private readonly kept: { readonly directory: string; readonly count: number },
  ) {}

  static async open(env: Environment, operation: 'dump' | 'restore', logName: string): Promise<CriuWork> {
    await ensureDirectories(env)
    const directory = mkdtempSync(join(await workDirectory(env), `${operation}-`))
    const kept = { directory: logsDirectory(env), count: env.config.checkpoint.keep_failed_logs }
    return new CriuWork(directory, openSync(directory, 'r'), logName, kept)
  }

  async log(): Promise<Buffer> {
    return readFile(join(this.directory, this.logName)).catch(() => Buffer.alloc(0))
  }

  /** What CRIU has counted, by its names; empty when it has not said, or had no room to. */
  statistics(operation: 'dump' | 'restore'): Readonly<Record<string, number>> {
    const name = `stats-${operation}`
    try {
      const counted = Object.entries(readImage(STATS, name, readFileSync(join(this.directory, name)))[0]?.[operation] ?? {})
      return Object.fromEntries(counted.filter((one): one is [string, number] => one[1] !== undefined))
    } catch {
      return {}
    }
  }

  /** What CRIU's refusal means. `pages`: what broke the page server, which CRIU knows only as a closed socket. */
  async explain(thrown: unknown, pages?: CedanaError): Promise<CedanaError> {
    const error = CedanaError.from(thrown)
    if (error.code !== 'CRIU_DUMP_FAILED' && error.code !== 'CRIU_RESTORE_FAILED') return error
    // A connection that CRIU broke itself says nothing.
    if (pages && !BROKEN.includes(String(pages.detail['errno']))) return pages
    const text = (await this.log()).toString('utf8')
    if (text === '') return error
    const kept = await this.#keepLog()
    const { lines, cause } = explainCriuLog(text)
    const what = error.code === 'CRIU_DUMP_FAILED' ? 'dump' : 'restore'
    return new CedanaError(error.code, `criu ${what} failed: ${cause?.message ?? lines[0] ?? error.message}`, {
      cause: error,
      hint: cause?.hint ?? (kept === undefined ? 'free some space for its log in the directory of the daemon' : `read the log ${kept}`),
      detail: { ...error.detail, criu: lines, ...(kept === undefined ? {} : { log: kept }), ...(cause ? { causeId: cause.id } : {}) },
    })
  }

  /** Undefined where there is no room for it. */
  async #keepLog(): Promise<string | undefined> {
    const kept = join(this.kept.directory, `${basename(this.directory)}.log`)
    try {
      await copyFile(join(this.directory, this.logName), kept)
      await removeOldLogs(this.kept.directory, this.kept.count)
      return kept
    } catch {
      await rm(kept, { force: true }).catch(() => undefined)
      return undefined
    }
  }

  async close(): Promise<void> {
    closeSync(this.fd)
    await removeDirectory(this.directory)
  }
}

/** The oldest go first. */
async function removeOldLogs(directory: string, keep: number): Promise<void> {
  const names = (await readdir(directory)).filter((name) => name.endsWith('.log'))
  if (names.length <= keep) return
  const ages = await Promise.all(
    names.map(async (name) => ({ name, at: (await stat(join(directory, name)).catch(() => undefined))?.mtimeMs ?? 0 })),
  )
  const old = ages.sort((a, b) => b.at - a.at).slice(keep)
  await Promise.all(old.map(({ name }) => rm(join(directory, name), { force: true })))
}

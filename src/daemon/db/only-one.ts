import { chmodSync, closeSync, openSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import Database from 'better-sqlite3'
import { CedanaError, reasonOf } from '../../plugins/contract/errors.js'

const RETRY_MS = 50

/**
 * One daemon per run directory, and per database: the next would take the work of the first for something that a dead one has left. The lock is that of an empty
 * SQLite file: Node has no call for one, and unlike flock() this one does not pass on to children, which outlive the daemon.
 * It ends when it is disposed of, or with the process, however that ends. `waitMs`: for a holder that is about to end.
 */
export async function beTheOnlyOne(file: string, waitMs: number): Promise<Disposable> {
  makePrivate(file)
  for (let waited = 0; ; waited += RETRY_MS) {
    const lock = new Database(file, { timeout: 0 })
    try {
      lock.pragma('journal_mode = memory')
      lock.exec('BEGIN EXCLUSIVE')
      return { [Symbol.dispose]: () => void lock.close() }
    } catch (cause) {
      lock.close()
      const isHeld = cause instanceof Database.SqliteError && cause.code.startsWith('SQLITE_BUSY')
      if (!isHeld) throw new CedanaError('HOST_UNFIT', `cannot lock ${file}: ${reasonOf(cause)}`, { cause })
      const hint = 'stop it first, or choose another run_dir, db.path and address'
      if (waited >= waitMs) throw new CedanaError('HOST_UNFIT', `another daemon is running: it holds ${file}`, { cause, hint })
    }
    await sleep(RETRY_MS)
  }
}

/** Whoever may read it may lock it. One that is there is not opened: closing it again would end locks that this process has on it. */
function makePrivate(file: string): void {
  try {
    try {
      closeSync(openSync(file, 'wx', 0o600))
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code !== 'EEXIST') throw thrown
    }
    chmodSync(file, 0o600)
  } catch (cause) {
    throw new CedanaError('HOST_UNFIT', `cannot lock ${file}: ${reasonOf(cause)}`, { cause })
  }
}

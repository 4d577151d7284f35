/** What a failed write means to those who asked for it. */
import Database from 'better-sqlite3'
import { CedanaError } from '../../plugins/contract/errors.js'

export function write<T>(work: () => T): T {
  try {
    return work()
  } catch (thrown) {
    if (!(thrown instanceof Database.SqliteError)) throw thrown
    if (thrown.code === 'SQLITE_FULL')
      throw new CedanaError('NO_SPACE', 'no space left for the database', { cause: thrown, hint: 'make room at db.path' })
    if (thrown.code.startsWith('SQLITE_CONSTRAINT'))
      throw new CedanaError('BUG', `the database refused a record: ${thrown.message}`, { cause: thrown })
    throw new CedanaError('STORAGE_FAILED', `cannot write to the database: ${thrown.message}`, { cause: thrown })
  }
}

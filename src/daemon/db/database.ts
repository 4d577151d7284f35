/** Opens the SQLite file: private, durable, of our schema, and nobody else's. */
import { closeSync, constants, fchmodSync, fstatSync, mkdirSync, openSync, statSync, type Stats } from 'node:fs'
import { dirname } from 'node:path'
import Database from 'better-sqlite3'
import { CedanaError, reasonOf } from '../../plugins/contract/errors.js'
import { CheckpointTable } from './checkpoints.js'
import { HostTable } from './hosts.js'
import { JobRows } from './jobs.js'
import { MIGRATIONS } from './migrations.js'

/** Marks a database as ours: "ceda". */
const APPLICATION_ID = 0x63656461
const BUSY_MS = 5000

export interface OpenDatabase {
  readonly jobs: JobRows
  readonly checkpoints: CheckpointTable
  readonly hosts: HostTable
  close(): void
}

/** Suffix of the file whose lock the daemon of a database holds. */
export const LOCK = '.lock'
/** For one process, gone with it. */
export const IN_MEMORY = ':memory:'

export function openDatabase(path: string): OpenDatabase {
  if (path !== IN_MEMORY) makePrivate(path)
  let db: Database.Database | undefined
  try {
    db = new Database(path, { timeout: BUSY_MS })
    checkOwn(db, path)
    db.pragma('journal_mode = WAL')
    // A job must be on the disk before its caller hears of it.
    db.pragma('synchronous = FULL')
    db.pragma('foreign_keys = ON')
    migrate(db, path)
    const opened = db
    return { jobs: new JobRows(db), checkpoints: new CheckpointTable(db), hosts: new HostTable(db), close: () => void opened.close() }
  } catch (thrown) {
    db?.close()
    throw thrown instanceof CedanaError ? thrown : databaseError(thrown, path)
  }
}

const unfit = (message: string, hint: string, cause?: unknown): CedanaError => new CedanaError('HOST_UNFIT', message, { hint, cause })
const ELSEWHERE = 'move it away, or set db.path to another file'

function databaseError(thrown: unknown, path: string): CedanaError {
  const code = thrown instanceof Database.SqliteError ? thrown.code : ''
  if (code === 'SQLITE_NOTADB') return unfit(`${path} is not a SQLite database`, ELSEWHERE, thrown)
  if (code.startsWith('SQLITE_CORRUPT')) return unfit(`database ${path} is damaged`, ELSEWHERE, thrown)
  if (code.startsWith('SQLITE_BUSY'))
    return unfit(`database ${path} is in use by another program`, 'stop the other daemon, or set db.path to another file', thrown)
  return unfit(`cannot open database ${path}: ${reasonOf(thrown)}`, ELSEWHERE, thrown)
}

/**
 * The default path lies in a directory that everybody may write to: whoever makes the file, a link to another, or one of the files that SQLite puts
 * beside it before we do, must not decide what we read. So each is made, or found to be ours, before SQLite sees it.
 */
function makePrivate(path: string): void {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
    const { mode } = statSync(dirname(path))
    const everybodyMayReplace = (mode & 0o002) !== 0 && (mode & 0o1000) === 0
    if (everybodyMayReplace) throw unfit(`directory ${dirname(path)} lets everybody replace its files`, 'set db.path to a file elsewhere')
    for (const suffix of ['', '-wal', '-shm', LOCK]) claim(path + suffix, constants.O_CREAT)
    // SQLite makes this one only for the moment that a new database becomes a WAL one.
    claim(`${path}-journal`, 0)
  } catch (thrown) {
    throw thrown instanceof CedanaError ? thrown : databaseError(thrown, path)
  }
}

function claim(file: string, create: number): void {
  let fd: number
  try {
    fd = openSync(file, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK | create, 0o600)
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException
    if (code === 'ENOENT' && create === 0) return
    if (code === 'ELOOP') throw unfit(`${file} is a symbolic link`, ELSEWHERE, thrown)
    throw thrown
  }
  try {
    const found: Stats = fstatSync(fd)
    if (!found.isFile()) throw unfit(`${file} is not a regular file`, ELSEWHERE)
    if (found.uid !== process.geteuid?.()) throw unfit(`${file} belongs to another user (uid ${found.uid})`, ELSEWHERE)
    if (found.nlink !== 1) throw unfit(`${file} has a second name (hard link)`, ELSEWHERE)
    fchmodSync(fd, 0o600)
  } finally {
    closeSync(fd)
  }
}

const numberOf = (db: Database.Database, pragma: string): number => Number(db.pragma(pragma, { simple: true }))

/** New and empty, or ours and whole. */
function checkOwn(db: Database.Database, path: string): void {
  const id = numberOf(db, 'application_id')
  const isEmpty = db.prepare('SELECT count(*) FROM sqlite_schema').pluck().get() === 0
  if (id !== APPLICATION_ID && !(id === 0 && isEmpty)) throw unfit(`${path} is the database of another program`, ELSEWHERE)
  if (db.pragma('quick_check(1)', { simple: true }) !== 'ok') throw unfit(`database ${path} is damaged`, ELSEWHERE)
}

function migrate(db: Database.Database, path: string): void {
  const version = numberOf(db, 'user_version')
  if (version > MIGRATIONS.length)
    throw unfit(`database ${path} was made by a newer cedana`, 'upgrade cedana, or set db.path to another file')
  db.transaction(() => {
    for (const step of MIGRATIONS.slice(version)) db.exec(step)
    db.pragma(`application_id = ${APPLICATION_ID}`)
    db.pragma(`user_version = ${MIGRATIONS.length}`)
  }).immediate()
}

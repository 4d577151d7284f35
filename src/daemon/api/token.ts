/** The secret that callers over TCP present, where no kernel vouches for them. Whoever can read the file acts as its owner. */
import { randomBytes } from 'node:crypto'
import { closeSync, constants, fstatSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { CedanaError, reasonOf } from '../../plugins/contract/errors.js'

/** Metadata key that carries it. */
export const TOKEN_KEY = 'authorization'
export const bearer = (token: string): string => `Bearer ${token}`

export function readToken(file: string): string {
  let fd: number
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW)
  } catch (cause) {
    throw new CedanaError('PERMISSION_DENIED', `cannot read the token file ${file}: ${reasonOf(cause)}`, {
      cause,
      hint: 'copy the token file of the daemon there, readable by you alone, or set tcp.token_file',
    })
  }
  try {
    if ((fstatSync(fd).mode & 0o077) !== 0) {
      throw new CedanaError('BAD_OPTIONS', `token file ${file} is open to others than its owner`, { hint: `run chmod 600 ${file}` })
    }
    const token = readFileSync(fd, 'utf8').trim()
    if (token.length < 16) throw new CedanaError('BAD_OPTIONS', `token file ${file} holds no token of at least 16 characters`)
    return token
  } finally {
    closeSync(fd)
  }
}

/** The token in the file, which is made when it does not exist. */
export function ensureToken(file: string): string {
  try {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 })
    const fd = openSync(file, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600)
    try {
      writeSync(fd, `${randomBytes(32).toString('hex')}\n`)
    } finally {
      closeSync(fd)
    }
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') {
      throw new CedanaError('HOST_UNFIT', `cannot write the token file ${file}: ${reasonOf(cause)}`, { cause, hint: 'set tcp.token_file' })
    }
  }
  return readToken(file)
}

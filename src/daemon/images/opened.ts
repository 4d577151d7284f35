/** A checkpoint as it is found: a directory, an archive, or one in an image of the OCI. Opened as the caller, without following links. */
import { constants, closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { CedanaError } from '../../plugins/contract/errors.js'
import { corrupt, unreadable } from './damage.js'
import { attempt, errnoOf, failure } from './failures.js'
import { at, OPEN_UNTRUSTED, type FileRange, type Files, type Ids } from './files.js'
import { findShards, formatOf, MAGIC_BYTES, requireLocal, type ArchiveFormat, type Shards } from './layout.js'
import { findCheckpoint, LAYOUT, MAX_BLOB_BYTES } from './oci.js'

export interface ReadRequest {
  readonly caller: Ids
  readonly path: string
}

export interface Opened {
  readonly fd: number
  readonly path: string
  /** undefined: a directory, of shards or of images. */
  readonly format: ArchiveFormat | undefined
  /** Of the archive in the file; undefined: it is all of it. */
  readonly range: FileRange | undefined
  /** What its image says it is, of an archive in an OCI image. */
  readonly sha256: string | undefined
  readonly shards: Shards | undefined
}

export async function openPath(files: Files, { caller, path }: ReadRequest): Promise<Opened> {
  requireLocal(path)
  let fd: number
  try {
    fd = await files.openAs(caller, undefined, path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (thrown) {
    const errno = errnoOf(thrown)
    if (errno !== 'ENOENT' && errno !== 'ENOTDIR') throw failure(thrown, `open ${path}`)
    throw new CedanaError('NO_SUCH_CHECKPOINT', `checkpoint path does not exist: ${path}`, { cause: thrown, detail: { path } })
  }
  try {
    const stats = fstatSync(fd)
    const whole = { fd, path, format: undefined, range: undefined, sha256: undefined, shards: undefined }
    if (stats.isDirectory()) {
      const entries = await attempt(`read ${path}`, () => readdir(at(fd, '.')))
      if (entries.includes(LAYOUT)) {
        const opened = await openLayout(files, { caller, path }, fd)
        closeSync(fd)
        return opened
      }
      return { ...whole, shards: findShards(path, entries) }
    }
    if (!stats.isFile()) throw new CedanaError('BAD_OPTIONS', `${path} is neither a directory nor a file`, { detail: { path } })
    const format = formatOf(path, firstBytes(fd))
    return (format === 'tar' ? await inLayout(files, fd, path) : undefined) ?? { ...whole, format }
  } catch (thrown) {
    closeSync(fd)
    throw thrown
  }
}

const firstBytes = (fd: number, range?: FileRange): Uint8Array => bytesOf(fd, { offset: range?.offset ?? 0, size: MAGIC_BYTES })

function bytesOf(fd: number, { offset, size }: FileRange): Uint8Array {
  const bytes = Buffer.alloc(size)
  return bytes.subarray(0, readSync(fd, bytes, 0, size, offset))
}

/** The archive in an OCI layout that is a tar itself; undefined: this is none. */
async function inLayout(files: Files, fd: number, path: string): Promise<Opened | undefined> {
  const members = await reopened(fd, (own) => files.archiveList(own)).catch((thrown: unknown) => {
    throw unreadable(thrown, path)
  })
  const byName = new Map(members.map((member) => [member.name, member]))
  if (!byName.has(LAYOUT)) return undefined
  const read = (name: string): Promise<Uint8Array | undefined> => {
    const member = byName.get(name)
    return Promise.resolve(member && bytesOf(fd, { ...member, size: Math.min(member.size, MAX_BLOB_BYTES) }))
  }
  const blob = await findCheckpoint({ path, read })
  const range = byName.get(blob.name)
  if (range?.size !== blob.size) throw corrupt(path, [{ name: blob.name, what: range ? 'is truncated' : 'is missing' }])
  return { fd, path, format: formatOf('.tar', firstBytes(fd, range)), range, sha256: blob.sha256, shards: undefined }
}

/** The same of a directory. Whoever owns it could make a link of anything in it: it is opened as the caller. */
async function openLayout(files: Files, { caller, path }: ReadRequest, directoryFd: number): Promise<Opened> {
  const openIn = (name: string): Promise<number> => files.openAs(caller, directoryFd, name, OPEN_UNTRUSTED)
  const read = async (name: string): Promise<Uint8Array | undefined> => {
    const fd = await openIn(name).catch(() => undefined)
    if (fd === undefined) return undefined
    try {
      return bytesOf(fd, { offset: 0, size: Math.min(fstatSync(fd).size, MAX_BLOB_BYTES) })
    } finally {
      closeSync(fd)
    }
  }
  const blob = await findCheckpoint({ path, read })
  const fd = await attempt(`read ${blob.name} of ${path}`, () => openIn(blob.name))
  try {
    return { fd, path, format: formatOf('.tar', firstBytes(fd)), range: undefined, sha256: blob.sha256, shards: undefined }
  } catch (thrown) {
    closeSync(fd)
    throw thrown
  }
}

/** A descriptor of its own, at the start of the file: reading moves the offset. */
export const reopened = async <T>(fd: number, use: (fd: number) => Promise<T>): Promise<T> => {
  const own = openSync(`/proc/self/fd/${fd}`, constants.O_RDONLY)
  try {
    return await use(own)
  } finally {
    closeSync(own)
  }
}

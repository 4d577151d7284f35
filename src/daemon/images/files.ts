/**
 * What checkpoint files need of the machine beyond node:fs; daemon/host/files.ts supplies it from the addon, test/support/plain-files.ts for
 * tests. Methods fail with the raw error of the call (`code` is the errno name): callers know what was attempted and translate it.
 */
import { closeSync, constants, fsync, openSync } from 'node:fs'
import { promisify } from 'node:util'
import type { Caller } from '../../plugins/contract/job.js'
import type { ArchiveFormat } from './layout.js'

export type Ids = Pick<Caller, 'uid' | 'gid' | 'groups'>

export interface FileDigest {
  readonly name: string
  readonly size: number
  /** XXH3-128, 32 hex digits. */
  readonly digest: string
}
export interface ArchiveProgress {
  readonly readBytes: number
  readonly writtenBytes: number
}
export interface ArchiveMember {
  readonly name: string
  readonly size: number
  readonly content: Uint8Array
}
export interface ArchiveRequest {
  readonly directoryFd: number
  readonly names: readonly string[]
  readonly outputFd: number
  readonly format: ArchiveFormat
  readonly level: number | undefined
  readonly threads: number
  readonly onProgress?: (progress: ArchiveProgress) => void
}

export interface Files {
  /** Opens with the file system ids of `ids`; `directoryFd` undefined: relative to the working directory. */
  openAs(ids: Ids, directoryFd: number | undefined, path: string, flags: number, mode?: number): Promise<number>
  /** Makes a directory with the ids of `ids` and opens it. */
  mkdirAs(ids: Ids, directoryFd: number, name: string, mode: number): Promise<number>
  /** Renames inside one directory; EEXIST when the new name is taken. */
  renameNoReplace(directoryFd: number, from: string, to: string): Promise<void>
  digestFiles(directoryFd: number, names: readonly string[]): Promise<readonly FileDigest[]>
  digestBytes(bytes: Uint8Array): string
  archiveCreate(request: ArchiveRequest): Promise<{ readonly size: number; readonly digest: string }>
  archiveExtract(
    archiveFd: number,
    format: ArchiveFormat,
    directoryFd: number,
    onProgress?: (progress: ArchiveProgress) => void,
  ): Promise<readonly FileDigest[]>
  /** The named members (null: all), at most `maxBytes` of each. */
  archiveRead(
    archiveFd: number,
    format: ArchiveFormat,
    names: readonly string[] | null,
    maxBytes: number,
  ): Promise<readonly ArchiveMember[]>
}

/** A path below an open directory that no rename or link on the way to it can divert. */
export const at = (directoryFd: number, name: string): string => `/proc/self/fd/${directoryFd}/${name}`

export const OPEN_DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY
/** For reading files somebody else may have put there: no links, and no waiting for a writer when it is a FIFO. */
export const OPEN_UNTRUSTED = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
/** For new files: never follows or replaces anything. */
export const OPEN_NEW = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW

export const sync = promisify(fsync)

/** fsync of a directory and of files in it, all at once: ext4 then writes its journal once or twice instead of once for each. */
export async function syncTogether(directoryFd: number, names: readonly string[]): Promise<void> {
  const syncFile = async (name: string): Promise<void> => {
    const fd = openSync(at(directoryFd, name), OPEN_UNTRUSTED)
    try {
      await sync(fd)
    } finally {
      closeSync(fd)
    }
  }
  await Promise.all([sync(directoryFd), ...names.map(syncFile)])
}

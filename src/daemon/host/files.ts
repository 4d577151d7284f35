/** The addon's part of what checkpoint files need, and files written for a caller. */
import { close, constants, write } from 'node:fs'
import { promisify } from 'node:util'
import { native } from '../../../addon/index.js'
import { attempt } from '../images/failures.js'
import type { Files, Ids } from '../images/files.js'

interface HostFiles extends Files {
  /** Whether that user may make and remove entries of the directory. */
  mayWrite(ids: Ids, directory: string): Promise<boolean>
}

/** AT_FDCWD. */
const WORKING_DIRECTORY = -100

/** Errors stay as the call gave them: daemon/images says what was attempted. */
export const files: HostFiles = {
  openAs: ({ uid, gid, groups }, directoryFd, path, flags, mode = 0) =>
    native.openAs(uid, gid, [...groups], directoryFd ?? WORKING_DIRECTORY, path, flags, mode),
  mkdirAs: ({ uid, gid, groups }, directoryFd, name, mode) => native.mkdirAs(uid, gid, [...groups], directoryFd, name, mode),
  mayWrite: ({ uid, gid, groups }, directory) => native.accessAs(uid, gid, [...groups], directory, constants.W_OK | constants.X_OK),
  renameNoReplace: (directoryFd, from, to) => native.renameNoReplace(directoryFd, from, directoryFd, to),
  digestFiles: (directoryFd, names) => native.digestFiles(directoryFd, [...names], false),
  digestBytes: (bytes) => native.digestBytes(bytes),
  archiveCreate: ({ directoryFd, names, outputFd, format, level, threads, onProgress }) =>
    native.archiveCreate(directoryFd, [...names], outputFd, format, level ?? null, threads, onProgress ?? null),
  archiveExtract: (archiveFd, format, directoryFd, onProgress) => native.archiveExtract(archiveFd, format, directoryFd, onProgress ?? null),
  archiveRead: (archiveFd, format, names, maxBytes) => native.archiveRead(archiveFd, format, names && [...names], maxBytes),
}

const closeFd = promisify(close)
const writeFd = promisify(write)

/** Writes a small file with the rights of `ids`. Replaces the content of one that is there. */
export async function writeFileAs(ids: Ids, path: string, content: string, mode: number): Promise<void> {
  await attempt(`write ${path}`, async () => {
    const { O_WRONLY, O_CREAT, O_TRUNC, O_NONBLOCK } = constants
    const fd = await files.openAs(ids, undefined, path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK, mode)
    try {
      await writeFd(fd, content)
    } finally {
      await closeFd(fd)
    }
  })
}

/** Whether `ids` may make and remove entries of this directory. */
export const mayWrite = ({ uid, gid, groups }: Ids, directory: string): Promise<boolean> =>
  native.accessAs(uid, gid, [...groups], directory, constants.W_OK | constants.X_OK)

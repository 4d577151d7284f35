/** The addon's part of what checkpoint files need, and files written for a caller. */
import { close, constants, write } from 'node:fs'
import { promisify } from 'node:util'
import { native } from '../../../addon/index.js'
import type { CancellationHandle, ImagesHandle, MemoryPlanHandle, MemoryWriterHandle } from '../../../addon/native.js'
import { attempt } from '../images/failures.js'
import type { Files, Ids, UnpackOptions } from '../images/files.js'

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
  digestFiles: (directoryFd, names, beside = false) => native.digestFiles(directoryFd, [...names], beside),
  digestBytes: (bytes) => native.digestBytes(bytes),
  sha256: (fd, { offset, size }) => native.sha256(fd, offset, size),
  pack: ({ outputFds, level, spillFd, offset = 0, ...request }) => {
    const handle = native.packOpen({ ...request, outputFds: [...outputFds], level: level ?? null, spillFd: spillFd ?? null, offset })
    return {
      handle,
      add: (directoryFd, names, folder = '') => native.packAdd(handle, directoryFd, [...names], folder),
      finish: () => native.packFinish(handle),
      progress: () => native.packProgress(handle),
      abort: () => native.packAbort(handle),
    }
  },
  makeImages: (memoryBytes, spillDirectory) => {
    const { images, directoryFd } = native.imagesMake(memoryBytes, spillDirectory)
    return { fd: directoryFd, handle: images, clear: () => native.imagesClear(images), close: () => native.imagesClose(images) }
  },
  unpackArchive: ({ fd, format, range = null }, options) =>
    cancellable(options, (cancellation, progress) =>
      native.unpackArchive(fd, format, range, [...(options.images ?? [])], imagesOf(options), cancellation, progress, writerOf(options)),
    ),
  unpackShards: (shardFds, format, expected, options) =>
    cancellable(options, (cancellation, progress) =>
      native.unpackShards([...shardFds], format, [...expected], imagesOf(options), cancellation, progress, writerOf(options)),
    ),
  copyImages: (directoryFd, names, options) =>
    cancellable(options, (cancellation, progress) =>
      native.copyImages(directoryFd, [...names], imagesOf(options), cancellation, progress, writerOf(options)),
    ),
  planMemory: (innerPid, pagemap, ranges) => {
    const planned = native.memoryPlan(innerPid, pagemap, Float64Array.from(ranges))
    return planned ? { ...planned, handle: planned.plan } : undefined
  },
  memoryWriter: (plans) => {
    const handle = native.memoryWriter(plans.map((plan) => plan.handle as MemoryPlanHandle))
    return { handle, start: (rootPid) => native.memoryWriterStart(handle, rootPid), stop: () => native.memoryWriterStop(handle) }
  },
  archiveCanSkip: ({ fd, format, range = null }) => native.archiveCanSkip(fd, format, range),
  archiveList: (archiveFd) => native.archiveList(archiveFd),
  archiveRead: ({ fd, format, range = null }, isShard, names, maxBytes) =>
    native.archiveRead(fd, format, range, isShard, names && [...names], maxBytes),
}

const writerOf = ({ writer }: UnpackOptions): MemoryWriterHandle | null => (writer?.handle ?? null) as MemoryWriterHandle | null
const imagesOf = ({ into }: UnpackOptions): ImagesHandle | null => (into?.handle ?? null) as ImagesHandle | null

async function cancellable<T>(
  { signal, onProgress }: UnpackOptions,
  work: (cancellation: CancellationHandle, onProgress: ((readBytes: number) => void) | null) => Promise<T>,
): Promise<T> {
  const cancellation = native.cancellation()
  const cancel = (): void => native.cancel(cancellation)
  signal.addEventListener('abort', cancel)
  if (signal.aborted) cancel()
  try {
    return await work(cancellation, onProgress ?? null)
  } finally {
    signal.removeEventListener('abort', cancel)
  }
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

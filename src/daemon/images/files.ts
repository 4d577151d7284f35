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
export interface ImageFile {
  readonly name: string
  readonly size: number
}
/** The files of a checkpoint, wherever they are. */
export interface ImageSource {
  readonly path: string
  list(): Promise<readonly ImageFile[]>
  /** Contents by name; those that do not exist are left out. */
  read(names: readonly string[]): Promise<ReadonlyMap<string, Uint8Array>>
}
export interface ArchiveMember {
  readonly name: string
  readonly size: number
  readonly content: Uint8Array
}

/** A part of a file. */
export interface FileRange {
  readonly offset: number
  readonly size: number
}
export interface StoredArchive {
  readonly fd: number
  readonly format: ArchiveFormat
  /** Where in the file it is; undefined: it is all of it. */
  readonly range: FileRange | undefined
}

export interface PackRequest {
  /** Empty files: one archive, or the shards. May be closed when this returns. */
  readonly outputFds: readonly number[]
  readonly sharded: boolean
  readonly format: ArchiveFormat
  readonly level: number | undefined
  readonly threads: number
  /** Of everything on its way. */
  readonly memoryBytes: number
  /** Packing yields to everything else. */
  readonly background: boolean
  /** An empty file for what memory cannot hold: nobody then waits for the packing. May be closed when this returns. */
  readonly spillFd: number | undefined
  /** Where in the outputs it begins, a multiple of HEAD_BYTES; undefined: at the start. */
  readonly offset?: number
}
/** What may stand before an archive in its file: no disk has larger blocks. */
export const HEAD_BYTES = 4096
/** Packs images into an archive or into shards while they come. After a failure the only thing left to do is `abort`. */
export interface Packer {
  /** For whoever brings images by another way: a page server. */
  readonly handle: object
  /** Files of a directory, in a folder of the archive (`checkpoint/`) where one is named; their digests when they are packed. */
  add(directoryFd: number, names: readonly string[], folder?: string): Promise<readonly FileDigest[]>
  /** Size and digest of each output, durable. An archive has no digest. */
  finish(): Promise<readonly Omit<FileDigest, 'name'>[]>
  progress(): { readonly packedBytes: number; readonly spilledBytes: number }
  /** Whatever is pending rejects with ECANCELED, soon; resolves when all has ended. May be called at any time. */
  abort(): Promise<void>
}

/** A private directory that nobody has to remove. Processes of root reach it through our descriptor. */
export interface ImageDirectory {
  readonly fd: number
  readonly handle: object
  clear(): void
  close(): void
}
/** The pages of a process: some are written into its memory by ourselves, and CRIU gets images of the rest. */
export interface MemoryPlan {
  readonly handle: object
  /** The file that all are in, and its size. */
  readonly pages: string
  readonly size: number
  readonly restSize: number
  /** In place of its pagemap. */
  readonly restPagemap: Uint8Array
}
/** Writes the memory of a tree that CRIU has built, and of which nothing has run. */
export interface MemoryWriter {
  readonly handle: object
  /** The tree is there. */
  start(rootPid: number): void
  /** There will be none: what waits for it rejects with ECANCELED. */
  stop(): void
}
export interface UnpackOptions {
  /** undefined: everything is read, and goes nowhere. */
  readonly into: ImageDirectory | undefined
  readonly signal: AbortSignal
  /** Bytes of the checkpoint that were read. */
  readonly onProgress?: ((readBytes: number) => void) | undefined
  /** What it writes does not go into `into`; without `into`, only that is read, and goes into memory. */
  readonly writer?: MemoryWriter | undefined
  /** Of an archive with a writer: all that it has. */
  readonly images?: readonly ImageFile[] | undefined
}
export interface Unpacked {
  readonly files: readonly FileDigest[]
  /** Each as it is stored. */
  readonly shards: readonly Omit<FileDigest, 'name'>[]
}

export interface Files {
  /** Opens with the file system ids of `ids`; `directoryFd` undefined: relative to the working directory. */
  openAs(ids: Ids, directoryFd: number | undefined, path: string, flags: number, mode?: number): Promise<number>
  /** Makes a directory with the ids of `ids` and opens it. */
  mkdirAs(ids: Ids, directoryFd: number, name: string, mode: number): Promise<number>
  /** Renames inside one directory; EEXIST when the new name is taken. */
  renameNoReplace(directoryFd: number, from: string, to: string): Promise<void>
  /** `beside`: something else is at work that needs a core of its own. */
  digestFiles(directoryFd: number, names: readonly string[], beside?: boolean): Promise<readonly FileDigest[]>
  digestBytes(bytes: Uint8Array): string
  /** 64 hex digits. EBADMSG when the file ends before. */
  sha256(fd: number, range: FileRange): Promise<string>
  pack(request: PackRequest): Packer
  /** In memory, up to so much; then in nameless files of that directory. */
  makeImages(memoryBytes: number, spillDirectory: string): ImageDirectory
  /** Of an archive of a container: CRIU's images, which are in a folder there, and the files beside it. */
  unpackArchive(archive: StoredArchive, options: UnpackOptions): Promise<Unpacked>
  /** All of them, in any order; together they have to hold exactly the expected images. */
  unpackShards(
    shardFds: readonly number[],
    format: ArchiveFormat,
    expected: readonly ImageFile[],
    options: UnpackOptions,
  ): Promise<Unpacked>
  copyImages(directoryFd: number, names: readonly string[], options: UnpackOptions): Promise<Unpacked>
  /** The pages of a process whose addresses are in these ranges (start, end, ascending) are ours. Undefined: the pagemap is not understood. */
  planMemory(innerPid: number, pagemap: Uint8Array, ranges: readonly number[]): MemoryPlan | undefined
  memoryWriter(plans: readonly MemoryPlan[]): MemoryWriter
  /** Whether parts of it are passed over without being unpacked, as far as its beginning tells. */
  archiveCanSkip(archive: StoredArchive): boolean
  /** All files of a plain tar, those in directories too, and where in it they are. */
  archiveList(archiveFd: number): Promise<readonly (FileRange & { readonly name: string })[]>
  /** The named members of an archive or of one shard, at most `maxBytes` of each. Null: all, of pages and ghost files the size only. */
  archiveRead(
    archive: StoredArchive,
    isShard: boolean,
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

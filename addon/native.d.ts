/**
 * Every function of cedana.node, in the order of module.cc. Arguments arrive validated; absence is `null`, never `undefined`.
 * Failures throw (or reject with) an Error carrying `op` (the call that failed), `errno` (number) and `code` (`ENOENT`); index.ts makes it a NativeError.
 * Descriptors are plain numbers owned by whoever received them unless said otherwise. Nothing here blocks the main thread for longer than a few system calls.
 */

/** proc/pidfd.cc: opaque, owns a pidfd; freed by pidfdClose or the garbage collector. */
export interface PidfdHandle {
  readonly __opaque: 'pidfd'
}
/** proc/connector.cc: opaque, one subscription to the execs of all processes; ended by connectorClose alone. */
export interface ConnectorHandle {
  readonly __opaque: 'connector'
}
/** criu/session.cc: opaque, owns our end of the RPC socket pair. */
export interface CriuSessionHandle {
  readonly __opaque: 'criu-session'
}
/** stream/pages.cc: opaque, one capture of page data. */
export interface PageServerHandle {
  readonly __opaque: 'page-server'
}

/** stream/pack.cc: opaque, an archive or shards being made. */
export interface PackerHandle {
  readonly __opaque: 'packer'
}
/** stream/images.cc: opaque, owns a directory in memory. */
export interface ImagesHandle {
  readonly __opaque: 'images'
}
/** stream/memory-writer.cc: opaque. */
export interface MemoryPlanHandle {
  readonly __memoryPlan: never
}
/** stream/memory-writer.cc: opaque. */
export interface MemoryWriterHandle {
  readonly __memoryWriter: never
}
/** stream/unpack.cc: opaque, ends what it was given to. */
export interface CancellationHandle {
  readonly __opaque: 'cancellation'
}

/** cuda/driver.cc: opaque, the libraries of the NVIDIA driver, loaded until the process ends. */
export interface CudaHandle {
  readonly __opaque: 'cuda'
}

export interface NativeExit {
  /** Exit code, or null when a signal ended it or the kernel does not tell (before 6.15 for processes that are not our children). */
  readonly code: number | null
  readonly signal: number | null
}

/** proc/scan.cc. Numbers are numbers where they fit in 53 bits, else decimal text. Names as in src/plugins/contract/job.ts. */
export interface NativeFile {
  readonly fd: number
  readonly path: string
  /** regular directory character block fifo socket symlink anonymous */
  readonly type: string
  readonly flags: number
  readonly position: number
  readonly mountId: number
  readonly inode: string
  readonly device: number
  readonly deviceId: number
  readonly isTty: boolean
  readonly isDeleted: boolean
  readonly isLocked: boolean
  readonly isSemaphore: boolean
}
export interface NativeProcess {
  readonly pid: number
  readonly innerPid: number
  readonly parentPid: number
  readonly processGroup: number
  readonly session: number
  readonly startTicks: string
  readonly state: string
  readonly name: string
  readonly args: string[]
  readonly executable: string
  readonly workingDirectory: string
  readonly rootDirectory: string
  readonly uids: number[]
  readonly gids: number[]
  readonly groups: number[]
  readonly threads: number[]
  readonly terminal: number
  readonly seccomp: number
  readonly residentBytes: number
  readonly dumpBytes: number
  readonly sharedBytes: number
  readonly tracer: number
  readonly namespaces: { cgroup: string; ipc: string; mnt: string; net: string; pid: string; user: string; uts: string }
  readonly cgroups: string[]
  readonly files: NativeFile[]
}
export interface NativeSocket {
  readonly pid: number
  readonly fd: number
  readonly inode: string
  readonly family: string
  readonly kind: string
  readonly state: string
  readonly local: string
  readonly remote: string
  readonly peerPid: number
}
export interface NativeMount {
  readonly id: number
  readonly parentId: number
  readonly device: string
  readonly root: string
  readonly path: string
  readonly options: string
  readonly filesystem: string
  readonly source: string
}
export interface NativeSnapshot {
  readonly processes: NativeProcess[]
  readonly sockets: NativeSocket[]
  readonly mounts: NativeMount[]
}

/** What one small file tells of a process. */
export interface NativeProcessStat {
  readonly pid: number
  readonly parentPid: number
  readonly processGroup: number
  readonly session: number
  readonly startTicks: string
  readonly state: string
  readonly name: string
}

/** What `ps` needs, nothing that costs. */
export interface NativeProcessBrief extends NativeProcessStat {
  readonly args: string[]
  readonly uid: number
  readonly gid: number
}

export interface NativeProcessOwner extends NativeProcessBrief {
  readonly uids: number[]
  readonly gids: number[]
  readonly groups: number[]
  readonly workingDirectory: string
}

export interface NativeCredentials {
  readonly pid: number
  readonly uid: number
  readonly gid: number
  readonly groups: number[]
}

export interface NativeExec {
  readonly pid: number
  /** CLOCK_MONOTONIC, by the kernel. */
  readonly timeNs: number
}

/** `detail` of a field of criu_opts, from CRIU's own descriptor: for the strict check of --criu-opts. */
export interface CriuField {
  readonly name: string
  readonly type: string
  readonly repeated: boolean
  readonly fields: CriuField[] | null
  readonly values: string[] | null
}

export interface CriuResponse {
  readonly success: boolean
  /** errno from the response, 0 when none. */
  readonly errno: number
  /** cr_errmsg, null when CRIU gave none. */
  readonly message: string | null
  /** PID of the restored root. */
  readonly pid: number | null
  /** criu_version.major/minor/sublevel for a VERSION request. */
  readonly version: number[] | null
}
/** Called on the main thread for a notification; CRIU waits. Rejecting answers notify_success = false, which makes CRIU roll back. */
export type CriuNotify = (script: string, pid: number | null) => Promise<void>

export interface NativeFileDigest {
  readonly name: string
  readonly size: number
  /** XXH3-128 of the content, above 4 MiB of its leaves (stream/checksum.h), 32 hex digits */ readonly digest: string
}

export interface PageServerOptions {
  /** Our end of `pageSocket`; taken over. */
  readonly socketFd: number
  /** Receives the images pagemap-*.img and pages-*.img. null: `directoryFd` does, as files. */
  readonly packer: PackerHandle | null
  /** Not closed. */
  readonly directoryFd: number
  /** CRIU version, e.g. 40201: decides the header of the protocol and the pagemap fields. */
  readonly criuVersion: number
  /** Bytes of buffers between socket and disk; the socket is not read while they are full. A packer has its own. */
  readonly memoryBytes: number
  /** Pages that are all zero and private anonymous are not stored; needs `rootPid`. */
  readonly dropZeroPages: boolean
  /** PID (ours) of the root of the dumped tree, to look up which memory is private anonymous; null: no page is dropped. */
  readonly rootPid: number | null
}
export interface PageServerProgress {
  readonly receivedBytes: number
  readonly writtenBytes: number
  readonly zeroBytes: number
}
export interface PageServerResult {
  readonly files: NativeFileDigest[]
  readonly receivedBytes: number
  readonly zeroBytes: number
  /** Of those received: not copied out of the socket, but read out of the process. */
  readonly aheadBytes: number
}

export interface PackerOptions {
  /** Empty files, to be written from their start: one archive, or the shards. Not closed. */
  readonly outputFds: number[]
  readonly sharded: boolean
  readonly format: string
  /** null: the codec's default. */
  readonly level: number | null
  readonly threads: number
  /** Bytes of all buffers; without `spillFd`, whoever fills waits while they are full. */
  readonly memoryBytes: number
  /** Packing begins when CRIU has sent its last page, and yields the processors to everything else. */
  readonly background: boolean
  /** Empty file that takes what memory cannot hold. Not closed. */
  readonly spillFd: number | null
  /** Where in the outputs it begins: a multiple of the blocks of the disk. */
  readonly offset: number
}
/** A part of a file. */
export interface FileRange {
  readonly offset: number
  readonly size: number
}
export interface PackerProgress {
  /** Content packed so far. */
  readonly packedBytes: number
  /** What it became. */
  readonly writtenBytes: number
  readonly spilledBytes: number
}
export interface Unpacked {
  readonly files: NativeFileDigest[]
  /** Size and digest of each shard as it is stored; their names are empty. */
  readonly shards: NativeFileDigest[]
}

export interface CudaDevice {
  /** 32 hexadecimal digits. */
  readonly uuid: string
  readonly name: string
  readonly totalBytes: number
  /** Of its device file; null when NVML does not tell. */
  readonly minor: number | null
}
export interface CudaFacts {
  /** Newest CUDA that the driver is for: 12080 is 12.8. */
  readonly cudaVersion: number
  /** Of the driver itself, such as `570.86.15`; empty when NVML does not tell. */
  readonly driver: string
  /** It has the checkpoint calls. */
  readonly hasCheckpoint: boolean
  readonly devices: CudaDevice[]
}
export interface CudaProcess {
  readonly result: number
  readonly restoreThread: number
  /** CUprocessState: 0 running, 1 locked, 2 checkpointed, 3 failed. */
  readonly state: number
}
export interface CudaUse {
  readonly pid: number
  /** Null: NVML does not tell of this one. */
  readonly bytes: number | null
  /** A client of MPS. */
  readonly usesMps: boolean
}
export interface CudaPair {
  /** Device ids, as in CudaDevice. */
  readonly from: string
  readonly to: string
}

export interface Native {
  // proc/pidfd.cc
  /** pidfd_open(2). Throws ESRCH. */
  pidfdOpen(pid: number): PidfdHandle
  /** pidfd_send_signal(2); false when the process has exited (a zombie too). Signal 0 probes. */
  pidfdSend(handle: PidfdHandle, signal: number): boolean
  /** Resolves when the process has exited; uses ioctl PIDFD_GET_INFO (Linux 6.15) for the status of a process that is not our child. One epoll thread serves all. */
  pidfdWait(handle: PidfdHandle): Promise<NativeExit>
  /** A wait that is pending rejects with ECANCELED. */
  pidfdClose(handle: PidfdHandle): void

  // proc/spawn.cc
  /**
   * A child: posix_spawn(3) of argv[0], a path, with default signals. `descriptors`: what become 0, 1, 2 … of it; -1 is none, /dev/null of the first three.
   * Throws when it cannot be run. `ended` resolves when it has exited and is reaped; unlike other promises it does not keep this process alive.
   */
  spawn(
    argv: string[],
    environment: string[],
    descriptors: number[],
    newSession: boolean,
  ): { child: PidfdHandle; ended: Promise<NativeExit> }
  /** pipe2(2), both ends O_CLOEXEC. */
  pipe(): { readFd: number; writeFd: number }

  // proc/scan.cc
  /** The tree below (and with) pid, root first. Processes that vanish meanwhile are left out; throws ESRCH when the root is gone. */
  scanTree(pid: number): Promise<NativeSnapshot>
  /** A brief row and whose it is, null when there is no such process. */
  scanProcess(pid: number): NativeProcessOwner | null
  /** All processes. */
  scanStats(): Promise<NativeProcessStat[]>
  /** Brief rows of the given PIDs (missing ones left out). */
  scanProcesses(pids: number[]): Promise<NativeProcessBrief[]>

  // proc/connector.cc
  /**
   * Subscribes to the kernel's proc connector, on a thread of its own. Rejects where that is not permitted: EPERM, or ECONNREFUSED in a network namespace.
   * `receiveBytes`: how many unread events the kernel keeps; an event takes about 1 KiB.
   */
  connectorOpen(receiveBytes: number): Promise<ConnectorHandle>
  /** From now on execs of this process are told, or no longer; those of others never are. */
  connectorWatch(connector: ConnectorHandle, pid: number, isWanted: boolean): void
  /** What there was since the last answer; waits for it. `overrun`: the kernel lost events, any process may have executed. ECANCELED: closed. One call at a time. */
  connectorNext(connector: ConnectorHandle): Promise<{ execs: NativeExec[]; overrun: boolean }>
  connectorClose(connector: ConnectorHandle): void

  // proc/credentials.cc
  /** SO_PEERCRED and SO_PEERGROUPS of a connected unix socket. */
  peerCredentials(socketFd: number): NativeCredentials
  /** openat2(2) with the file system ids and groups of that user, on a thread of its own, O_CLOEXEC and RESOLVE_NO_MAGICLINKS added; directoryFd -100 is AT_FDCWD. */
  openAs(uid: number, gid: number, groups: number[], directoryFd: number, path: string, flags: number, mode: number): Promise<number>
  /** mkdirat(2) as that user, then an O_DIRECTORY descriptor of the new directory. Mode is subject to the umask. */
  mkdirAs(uid: number, gid: number, groups: number[], directoryFd: number, path: string, mode: number): Promise<number>
  /** access(2)-like check with file system ids of that user: mode bits R_OK 4, W_OK 2, X_OK 1. False also when there is no such file. */
  accessAs(uid: number, gid: number, groups: number[], path: string, mode: number): Promise<boolean>

  // proc/notify.cc
  /** One datagram to $NOTIFY_SOCKET given as path (leading @ = abstract); sd_notify(3). */
  sdNotify(socketPath: string, message: string): void
  /** syncfs(2) of the file system that holds the file, off the main thread. */
  syncFilesystem(fd: number): Promise<void>
  /** renameat2(2) with RENAME_NOREPLACE; throws EEXIST when the new name is taken. */
  renameNoReplace(oldDirFd: number, oldName: string, newDirFd: number, newName: string): Promise<void>

  // criu/session.cc
  /** A SOCK_SEQPACKET pair: ours stays in the handle, `peerFd` goes to `criu swrk` by inheritance and is then closed by the caller. */
  criuSession(): { session: CriuSessionHandle; peerFd: number }
  /**
   * One request on the session's own thread. `type`: DUMP RESTORE PRE_DUMP VERSION FEATURE_CHECK …; `options`: fields of criu_opts by name
   * (bytes as Uint8Array, 64-bit as decimal text or number). Unknown names, wrong types and missing fields reject with EINVAL, the path in `op`, before anything is sent; a second request meanwhile with EBUSY. Rejects with ECONNRESET when CRIU dies.
   * `scripts`: the notifications that `notify` is called for, null for all; CRIU goes on at once after the others.
   */
  criuRequest(
    session: CriuSessionHandle,
    type: string,
    options: object | null,
    notify: CriuNotify | null,
    scripts: string[] | null,
  ): Promise<CriuResponse>
  /** Shuts the socket: CRIU rolls back; a pending request rejects with ECONNRESET. */
  criuClose(session: CriuSessionHandle): void
  /** The fields of criu_opts that the linked libcriu knows. */
  criuOptions(): CriuField[]

  // stream/pages.cc
  /** A stream socket pair with large buffers: pass `peerFd` to swrk as descriptor N with opts.ps = {fd: N}, then close it. */
  pageSocket(): { socketFd: number; peerFd: number }
  /** CRIU's page server on our end of the pair. Threads start at once. */
  pageServerOpen(options: PageServerOptions): PageServerHandle
  /** Touches memory for so much, up to the limit: the first touch costs more than the copy, and CRIU need not wait for it. */
  pageServerPrepare(server: PageServerHandle, bytes: number): Promise<void>
  /**
   * For when CRIU has stopped the tree and waits for an answer: from now on memory of it is read, as much as there are buffers for, instead of being
   * copied out of the socket. Returns at once.
   */
  pageServerReadAhead(server: PageServerHandle): void
  pageServerProgress(server: PageServerHandle): PageServerProgress
  /** After CRIU finished writing: resolves when every byte is written and synced, with the digest of each file computed in passing. */
  pageServerFinish(server: PageServerHandle): Promise<PageServerResult>
  /** Stops the threads, closes the socket; leaves the files for the caller to remove. */
  pageServerAbort(server: PageServerHandle): Promise<void>

  // stream/checksum.cc
  /** Size and digest of files of a directory, on all cores; with `beside` but one. Throws ENOENT naming the file in `op`. */
  digestFiles(directoryFd: number, names: string[], beside: boolean): Promise<NativeFileDigest[]>
  /** The digest that a file of these bytes has. */
  digestBytes(bytes: Uint8Array): string
  /** Of a part of a file; EBADMSG when it ends before. */
  sha256(fd: number, offset: number, size: number): Promise<string>

  // stream/pack.cc
  /** Threads start at once. Images come from a page server and by packAdd. */
  packOpen(options: PackerOptions): PackerHandle
  /**
   * Adds regular files of a directory; resolves with the digests of these images when they are packed. In an archive, with a `folder` (a slash at its
   * end; else empty): that folder, as if it were one of them, and then the files with it before their names.
   */
  packAdd(packer: PackerHandle, directoryFd: number, names: string[], folder: string): Promise<NativeFileDigest[]>
  packProgress(packer: PackerHandle): PackerProgress
  /** Ends the outputs: resolves when they are durable, with size and (of shards only) digest of each. */
  packFinish(packer: PackerHandle): Promise<NativeFileDigest[]>
  /** Whatever is pending rejects with ECANCELED, soon; resolves when all has ended. */
  packAbort(packer: PackerHandle): Promise<void>

  // stream/unpack.cc
  cancellation(): CancellationHandle
  /** What was given it rejects with ECANCELED, soon. */
  cancel(cancellation: CancellationHandle): void
  /**
   * A directory in memory, mounted nowhere, that ends with this process at the latest. Files that make it exceed `memoryBytes` become nameless files in
   * `spillDirectory`. The descriptor is the handle's.
   */
  imagesMake(memoryBytes: number, spillDirectory: string): { images: ImagesHandle; directoryFd: number }
  /** Removes all files. */
  imagesClear(images: ImagesHandle): void
  imagesClose(images: ImagesHandle): void
  /**
   * Which pages of a process are written into its memory by ourselves, from its pagemap image and the ranges of addresses (start, end, ascending) that
   * this may be done with. Null where not all of the pagemap is understood. CRIU gets `restPagemap`, and a pages file of `restSize`.
   */
  memoryPlan(
    innerPid: number,
    pagemap: Uint8Array,
    ranges: Float64Array,
  ): { plan: MemoryPlanHandle; pages: string; size: number; restSize: number; restPagemap: Uint8Array } | null
  memoryWriter(plans: MemoryPlanHandle[]): MemoryWriterHandle
  /** The tree stands there, and nothing of it has run. What it lacks is ESRCH for what waits for it. */
  memoryWriterStart(writer: MemoryWriterHandle, rootPid: number): void
  /** There will be no tree: what waits for it rejects with ECANCELED. */
  memoryWriterStop(writer: MemoryWriterHandle): void
  /**
   * Extracts an archive, or that part of a file, into `images` (null: nowhere), digesting in passing. Files in directories are passed over, but for those in checkpoint/, which come
   * without it; names that lead out of a directory are refused. Truncation or a codec error: EBADMSG.
   * With a writer, all files of it have to be `expected`. With a writer and `images`: without the pages that it writes. With a writer and no `images`: those
   * pages, into memory; they are all that is digested.
   */
  unpackArchive(
    archiveFd: number,
    format: string,
    range: FileRange | null,
    expected: { name: string; size: number }[],
    images: ImagesHandle | null,
    cancellation: CancellationHandle | null,
    onProgress: ((readBytes: number) => void) | null,
    writer: MemoryWriterHandle | null,
  ): Promise<Unpacked>
  /** The same for all shards of a checkpoint. With a writer and `images`: without digests of the shards. */
  unpackShards(
    shardFds: number[],
    format: string,
    expected: { name: string; size: number }[],
    images: ImagesHandle | null,
    cancellation: CancellationHandle | null,
    onProgress: ((readBytes: number) => void) | null,
    writer: MemoryWriterHandle | null,
  ): Promise<Unpacked>
  /** The same for plain files of a directory; without `images` only pages files may be named. */
  copyImages(
    directoryFd: number,
    names: string[],
    images: ImagesHandle | null,
    cancellation: CancellationHandle | null,
    onProgress: ((readBytes: number) => void) | null,
    writer: MemoryWriterHandle | null,
  ): Promise<Unpacked>
  /**
   * Contents of the named members of an archive or of one shard, up to maxBytes each, without extracting (members missing are left out). Null: all, of
   * pages and ghost files the size only.
   */
  archiveRead(
    archiveFd: number,
    format: string,
    range: FileRange | null,
    isShard: boolean,
    names: string[] | null,
    maxBytes: number,
  ): Promise<{ name: string; size: number; content: Uint8Array }[]>
  /** Whether parts of it are passed over without being unpacked, as far as its beginning tells. */
  archiveCanSkip(archiveFd: number, format: string, range: FileRange | null): boolean
  /** All files of a plain tar, those in directories too, and where in it their contents are. */
  archiveList(archiveFd: number): Promise<({ name: string } & FileRange)[]>

  // cuda/checkpoint.cc. Answers are CUresult (0: success); each call takes as long as the driver does. For a process that does nothing else: a driver may
  // hang, or abort.
  /** Loads libcuda (by path or name) and, where it is there, NVML; `result` is that of cuInit. ENOENT with the loader's words in `op`. */
  cudaOpen(library: string, management: string): Promise<{ cuda: CudaHandle; result: number }>
  cudaFacts(cuda: CudaHandle): Promise<CudaFacts>
  /** A `result` other than 0: most likely not a process of CUDA. */
  cudaProcess(cuda: CudaHandle, pid: number): Promise<CudaProcess>
  /** `timeoutMs` 0: waits for as long as work submitted before takes. */
  cudaLock(cuda: CudaHandle, pid: number, timeoutMs: number): Promise<number>
  cudaCheckpoint(cuda: CudaHandle, pid: number): Promise<number>
  /** `pairs` empty: onto the devices it was on. */
  cudaRestore(cuda: CudaHandle, pid: number, pairs: CudaPair[]): Promise<number>
  cudaUnlock(cuda: CudaHandle, pid: number): Promise<number>
  /** What each process has on all devices together; null when NVML does not tell. */
  cudaUses(cuda: CudaHandle): Promise<CudaUse[] | null>
}

/** What is known about processes and jobs: plain data, the same in the daemon, the database, plans and checkpoints. */

/** PID in the daemon's PID namespace. */
export type Pid = number & { readonly __brand: 'Pid' }
/** Job id as the user sees it: `[A-Za-z0-9][A-Za-z0-9_.-]{0,127}`. */
export type JobId = string & { readonly __brand: 'JobId' }

/**
 * The live process tree a verb acts on. A PID alone is not an identity: the kernel reuses it.
 * `startTicks`: field 22 of /proc/PID/stat, clock ticks since boot, as decimal text.
 * `bootId`: /proc/sys/kernel/random/boot_id.
 */
export interface Target {
  readonly pid: Pid
  readonly startTicks: string
  readonly bootId: string
}

/** Real, effective, saved and filesystem id, as in /proc/PID/status. */
export type IdSet = readonly [real: number, effective: number, saved: number, fs: number]

export const FILE_TYPES = ['regular', 'directory', 'character', 'block', 'fifo', 'socket', 'symlink', 'anonymous'] as const
export type FileType = (typeof FILE_TYPES)[number]

export interface OpenFile {
  readonly fd: number
  /** Target of /proc/PID/fd/N, verbatim: a path, `pipe:[1]`, `socket:[2]`, `anon_inode:[eventfd]`, `/memfd:x (deleted)`. */
  readonly path: string
  readonly type: FileType
  /** open(2) flags as the kernel reports them in fdinfo. */
  readonly flags: number
  /** File offset in bytes. */
  readonly position: number
  /** Mount id from fdinfo; appears in the mount table of the process or the file is external to it. */
  readonly mountId: number
  readonly inode: string
  /** st_dev and st_rdev as the kernel encodes them (new_encode_dev), as CRIU prints them in keys. */
  readonly device: number
  readonly deviceId: number
  readonly isTty: boolean
  /** The file has no name any more (link count 0 or ` (deleted)`). */
  readonly isDeleted: boolean
  /** Somebody holds a lock on it through this descriptor (flock, POSIX, OFD or lease). */
  readonly isLocked: boolean
  /** An eventfd made with EFD_SEMAPHORE. */
  readonly isSemaphore: boolean
}

/** What CRIU calls a file that is not the tree's own, in `external` and `inherit_fd` (criu(8)). */
export const externalKey = ({ isTty, deviceId, device, mountId, inode }: OpenFile): string =>
  isTty ? `tty[${deviceId.toString(16)}:${device.toString(16)}]` : `file[${mountId.toString(16)}:${BigInt(inode).toString(16)}]`

export const SOCKET_FAMILIES = ['inet', 'inet6', 'unix', 'netlink', 'packet', 'other'] as const
export type SocketFamily = (typeof SOCKET_FAMILIES)[number]

/** A socket held by a process of the tree (matched by inode: the rest of its network namespace is not here). */
export interface Socket {
  readonly pid: Pid
  readonly fd: number
  readonly inode: string
  readonly family: SocketFamily
  readonly kind: 'stream' | 'datagram' | 'seqpacket' | 'raw' | 'other'
  /** `LISTEN`, `ESTABLISHED`, `CLOSE` …; for unix sockets `LISTEN`, `CONNECTED`, `UNCONNECTED`. */
  readonly state: string
  /** `address:port`, `[address]:port`, or the path of a unix socket (`@name` when abstract, empty when unnamed). */
  readonly local: string
  readonly remote: string
  /** Of a connected unix stream whose other end is outside the tree: a process that holds it. 0: none known. */
  readonly peerPid: number
}

export interface Mount {
  readonly id: number
  readonly parentId: number
  readonly device: string
  readonly root: string
  readonly path: string
  readonly options: string
  readonly filesystem: string
  readonly source: string
}

/** Inode numbers of /proc/PID/ns/*. */
export interface Namespaces {
  readonly cgroup: string
  readonly ipc: string
  readonly mnt: string
  readonly net: string
  readonly pid: string
  readonly user: string
  readonly uts: string
}

/** What users are told of a kernel state letter. */
export const STATE_WORDS: Readonly<Record<string, string>> = {
  R: 'running',
  S: 'sleep',
  T: 'stop',
  t: 'stop',
  I: 'idle',
  Z: 'zombie',
  W: 'wait',
  L: 'lock',
  D: 'blocked',
}

export interface ProcessFacts {
  readonly pid: Pid
  /** In the PID namespace that it is in, which is how CRIU knows it; 0: not known. */
  readonly innerPid: number
  readonly parentPid: Pid
  readonly processGroup: number
  readonly session: number
  readonly startTicks: string
  /** Kernel state letter: R S D T t Z I X. */
  readonly state: string
  readonly name: string
  readonly args: readonly string[]
  readonly executable: string
  readonly workingDirectory: string
  readonly rootDirectory: string
  readonly uids: IdSet
  readonly gids: IdSet
  readonly groups: readonly number[]
  readonly threads: readonly number[]
  /** Device number of the controlling terminal; 0 when there is none. */
  readonly terminal: number
  /** 0 none, 1 strict, 2 filter. */
  readonly seccomp: number
  readonly residentBytes: number
  /** Private memory that a dump must store: RssAnon and VmSwap of /proc/PID/status. */
  readonly dumpBytes: number
  /** Shared memory in use, which is stored once for all who share it: RssShmem. */
  readonly sharedBytes: number
  /** Traced by this PID; 0 when not traced. */
  readonly tracer: number
  readonly namespaces: Namespaces
  /** Lines of /proc/PID/cgroup. */
  readonly cgroups: readonly string[]
  readonly files: readonly OpenFile[]
}

/** One consistent-enough look at a tree, root first, parents before children. Taken before a dump and stored with it. */
export interface Snapshot {
  readonly target: Target
  readonly processes: readonly ProcessFacts[]
  readonly sockets: readonly Socket[]
  /** Mount table of the root process. */
  readonly mounts: readonly Mount[]
}

/** The user a request acts for: from the peer's credentials, never from the request. */
export interface Caller {
  readonly uid: number
  readonly gid: number
  readonly groups: readonly number[]
  readonly pid: number
}

/**
 * Where the standard streams of a job go.
 * - `log`: stdout and stderr are the log file itself, stdin is /dev/null; nothing can attach.
 * - `pipe`: three pipes held by the shim; attachable.
 * - `tty`: one terminal whose master the shim holds; attachable.
 * - `inherit`: the caller's own (without a daemon).
 * - `none`: somebody else's business (a process that was put under management, a bare restore).
 */
export const STDIO_MODES = ['log', 'pipe', 'tty', 'inherit', 'none'] as const
export type StdioMode = (typeof STDIO_MODES)[number]

/** Exactly one of the two is set. `signal`: number of the signal that ended the process. */
export interface ExitStatus {
  readonly code?: number
  readonly signal?: number
}

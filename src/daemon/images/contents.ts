/** What is inside a checkpoint, read from CRIU's images: works for anybody's dump, with a manifest or without. */
import { CedanaError } from '../../plugins/contract/errors.js'
import * as images from './criu-images.js'
import type { Decoded, ImageKind, Shape } from './criu-images.js'
import { type ContainedContainer, CONTAINER_FILES, readContainer, ROOTFS_DIFF } from './container.js'
import type { ImageFile, ImageSource } from './files.js'
import { decodeState, STATE } from './state.js'

export interface ContainedFile {
  readonly fd: number
  /** regular pipe fifo tty eventfd epoll inotify signalfd netlink packet timerfd memfd pidfd … */
  readonly kind: string
  readonly path: string
  /** open(2) flags. */
  readonly flags: number
  readonly position: number
  /** Bytes of a regular file or memfd at the dump. */
  readonly size: number
}
export interface ContainedSocket {
  readonly fd: number
  readonly family: string
  readonly kind: string
  readonly state: string
  readonly local: string
  readonly remote: string
}
export interface ContainedMemory {
  /** Address space. */
  readonly mappedBytes: number
  readonly heapBytes: number
  readonly stackBytes: number
  readonly anonymousBytes: number
  readonly sharedBytes: number
  readonly fileBytes: number
  /** Pages in the images, and pages that are in the parent checkpoint only. */
  readonly storedBytes: number
  readonly parentBytes: number
}
export interface ContainedProcess {
  readonly pid: number
  readonly parentPid: number
  readonly processGroup: number
  readonly session: number
  readonly name: string
  /** running stopped dead zombie */
  readonly state: string
  readonly args: readonly string[]
  readonly executable: string
  readonly workingDirectory: string
  readonly rootDirectory: string
  readonly uids: readonly number[]
  readonly gids: readonly number[]
  readonly groups: readonly number[]
  readonly threads: readonly number[]
  readonly memory: ContainedMemory
  readonly files: readonly ContainedFile[]
  readonly sockets: readonly ContainedSocket[]
}
/** A file the restore will open by name and compare with what it was. */
export interface NeededFile {
  readonly path: string
  readonly size: number | undefined
  /** st_mode. */
  readonly mode: number | undefined
}
/** A local address the restore will bind: a listening TCP socket, or any UDP socket. */
export interface NeededAddress {
  readonly protocol: 'tcp' | 'udp'
  readonly address: string
  readonly port: number
  readonly isShared: boolean
}
export interface Contents {
  /** Absent of a bare process. */
  readonly container?: ContainedContainer
  readonly processes: readonly ContainedProcess[]
  readonly totals: {
    readonly processes: number
    readonly threads: number
    readonly files: number
    readonly sockets: number
    /** Pages in the images, shared memory included. */
    readonly storedBytes: number
  }
}

const PAGE = 4096
const IN_PARENT = 1
const PRESENT = 4

const FD_KINDS = [
  ...[
    'undefined',
    'regular',
    'pipe',
    'fifo',
    'inet',
    'unix',
    'eventfd',
    'epoll',
    'inotify',
    'signalfd',
    'packet',
    'tty',
    'fanotify',
    'netlink',
  ],
  ...['namespace', 'tun', 'external', 'timerfd', 'memfd', 'bpf-map', 'pidfd'],
] as const
const TASK_STATES: Readonly<Record<number, string>> = { 1: 'running', 2: 'dead', 3: 'stopped', 6: 'zombie' }
const TCP_STATES = [
  ...[
    '',
    'ESTABLISHED',
    'SYN_SENT',
    'SYN_RECV',
    'FIN_WAIT1',
    'FIN_WAIT2',
    'TIME_WAIT',
    'CLOSE',
    'CLOSE_WAIT',
    'LAST_ACK',
    'LISTEN',
    'CLOSING',
  ],
  'NEW_SYN_RECV',
] as const
const SOCKET_KINDS: Readonly<Record<number, string>> = { 1: 'stream', 2: 'datagram', 3: 'raw', 5: 'seqpacket' }
const LISTEN = 10
const AF_INET6 = 10

/** Status bits of a memory area. */
const HEAP = 1 << 5
const FILE_PRIVATE = 1 << 6
const FILE_SHARED = 1 << 7
const ANONYMOUS_SHARED = 1 << 8
const SYSV = 1 << 10
const MEMFD_AREA = 1 << 14

type FileRecord = Decoded<(typeof images.FILES)['shape']>

/** All images that the readers below want, decoded on demand. */
class Images {
  private constructor(
    private readonly contents: ReadonlyMap<string, Uint8Array>,
    private readonly files: readonly ImageFile[],
  ) {}

  static async load(source: ImageSource): Promise<Images> {
    const files = await source.list()
    const names = files.map(({ name }) => name)
    const wanted = names.filter((name) =>
      /^(pstree|files|memfd|remap-fpath|(core|ids|fs|mm|pagemap|pagemap-shmem|fdinfo)-\d+)\.img$/.test(name),
    )
    return new Images(await source.read([...wanted, ...CONTAINER_FILES.filter((name) => names.includes(name)), STATE]), files)
  }

  get names(): readonly string[] {
    return this.files.map(({ name }) => name)
  }

  container(): ContainedContainer | undefined {
    return readContainer(this.contents, this.files.find(({ name }) => name === ROOTFS_DIFF)?.size ?? 0)
  }

  /** By PID. CRIU keeps them in the memory of the processes only; the saved look at the tree has them. */
  commandLines(): ReadonlyMap<number, readonly string[]> {
    const bytes = this.contents.get(STATE)
    try {
      return new Map(bytes && decodeState(bytes).processes.map(({ pid, innerPid, args }) => [innerPid || pid, args]))
    } catch {
      // Another program's file of the same name.
      return new Map()
    }
  }

  /** Empty when there is no such image: CRIU writes none for what it did not meet. */
  all<S extends Shape>(kind: ImageKind<S>, name: string): readonly Decoded<S>[] {
    const bytes = this.contents.get(name)
    return bytes ? images.readImage(kind, name, bytes) : []
  }

  one<S extends Shape>(kind: ImageKind<S>, name: string): Decoded<S> | undefined {
    return this.all(kind, name)[0]
  }
}

export async function readContents(source: ImageSource): Promise<Contents> {
  const loaded = await Images.load(source)
  const tree = loaded.all(images.PSTREE, 'pstree.img')
  if (tree.length === 0)
    throw new CedanaError('IMAGE_CORRUPT', `${source.path} contains no process tree`, { detail: { files: ['pstree.img'] } })
  const files = new OpenFiles(loaded)
  const args = loaded.commandLines()
  const processes = tree.map((entry) => readProcess(loaded, files, entry, args.get(entry.pid) ?? []))
  const shared = loaded.names.filter((name) => name.startsWith('pagemap-shmem-')).map((name) => pageBytes(loaded, name).stored)
  const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0)
  const container = loaded.container()
  return {
    ...(container && { container }),
    processes,
    totals: {
      processes: processes.length,
      threads: sum(processes.map(({ threads }) => threads.length)),
      files: sum(processes.map((process) => process.files.length)),
      sockets: sum(processes.map(({ sockets }) => sockets.length)),
      storedBytes: sum([...processes.map(({ memory }) => memory.storedBytes), ...shared]),
    },
  }
}

/** What the restore will look for on this machine: files by name, local addresses. */
export async function readNeeds(
  source: ImageSource,
): Promise<{ readonly files: readonly NeededFile[]; readonly addresses: readonly NeededAddress[] }> {
  const loaded = await Images.load(source)
  const nameless = new Set(loaded.all(images.REMAP, 'remap-fpath.img').map(({ id }) => id))
  const records = loaded.all(images.FILES, 'files.img')
  const files = new Map<string, NeededFile>()
  for (const { id, regular } of records) {
    if (!regular || regular.isExternal !== 0 || nameless.has(id)) continue
    files.set(regular.path, { path: regular.path, size: regular.size, mode: regular.mode })
  }
  const addresses = records.flatMap(({ inet }): NeededAddress[] => {
    if (!inet || inet.localPort === 0) return []
    const isTcp = inet.type === 1
    if (isTcp && inet.state !== LISTEN) return []
    const address = inetAddress(inet.family, inet.local)
    return [{ protocol: isTcp ? 'tcp' : 'udp', address, port: inet.localPort, isShared: isShared(isTcp, inet.options) }]
  })
  return { files: [...files.values()], addresses }
}

/** Whether another socket may have the same address at the same time. */
const isShared = (isTcp: boolean, options: { readonly reuseAddress: number; readonly reusePort: number } | undefined): boolean =>
  options !== undefined && (options.reusePort !== 0 || (!isTcp && options.reuseAddress !== 0))

function readProcess(
  loaded: Images,
  files: OpenFiles,
  entry: Decoded<(typeof images.PSTREE)['shape']>,
  args: readonly string[],
): ContainedProcess {
  const { pid } = entry
  const core = loaded.one(images.CORE, `core-${pid}.img`)
  const mm = loaded.one(images.MM, `mm-${pid}.img`)
  const fs = loaded.one(images.FS, `fs-${pid}.img`)
  const ids = loaded.one(images.IDS, `ids-${pid}.img`)
  const rights = core?.thread?.credentials
  const descriptors = ids ? loaded.all(images.FDINFO, `fdinfo-${ids.files}.img`) : []
  return {
    pid,
    parentPid: entry.parent,
    processGroup: entry.group,
    session: entry.session,
    name: core?.task?.name ?? '',
    state: TASK_STATES[core?.task?.state ?? 1] ?? 'unknown',
    args,
    executable: files.pathOf(mm?.executable),
    workingDirectory: files.pathOf(fs?.workingDirectory),
    rootDirectory: files.pathOf(fs?.root),
    uids: rights ? [rights.uid, rights.euid, rights.suid, rights.fsuid] : [],
    gids: rights ? [rights.gid, rights.egid, rights.sgid, rights.fsgid] : [],
    groups: rights?.groups ?? [],
    threads: entry.threads,
    memory: readMemory(loaded, pid, mm),
    files: descriptors.flatMap(({ id, type, fd }) => files.file(id, type, fd)),
    sockets: descriptors.flatMap(({ id, fd }) => files.socket(id, fd)),
  }
}

function readMemory(loaded: Images, pid: number, mm: Decoded<(typeof images.MM)['shape']> | undefined): ContainedMemory {
  const bytes = { mapped: 0, heap: 0, stack: 0, anonymous: 0, shared: 0, file: 0 }
  const stack = mm?.stack ?? 0
  for (const { start, end, status } of mm?.areas ?? []) {
    const size = end - start
    bytes.mapped += size
    if (status & HEAP) bytes.heap += size
    else if (start <= stack && stack < end) bytes.stack += size
    else if (status & (ANONYMOUS_SHARED | SYSV | MEMFD_AREA)) bytes.shared += size
    else if (status & (FILE_PRIVATE | FILE_SHARED)) bytes.file += size
    else bytes.anonymous += size
  }
  const pages = pageBytes(loaded, `pagemap-${pid}.img`)
  return {
    mappedBytes: bytes.mapped,
    heapBytes: bytes.heap,
    stackBytes: bytes.stack,
    anonymousBytes: bytes.anonymous,
    sharedBytes: bytes.shared,
    fileBytes: bytes.file,
    storedBytes: pages.stored,
    parentBytes: pages.parent,
  }
}

function pageBytes(loaded: Images, name: string): { readonly stored: number; readonly parent: number } {
  let stored = 0
  let parent = 0
  for (const { pages, pagesThen, flags, inParent } of loaded.all(images.PAGEMAP, name)) {
    const size = (pages || pagesThen) * PAGE
    // Images from before the flags have `inParent` only.
    if (flags === undefined ? inParent !== 0 : (flags & IN_PARENT) !== 0) parent += size
    else if (flags === undefined || (flags & PRESENT) !== 0) stored += size
  }
  return { stored, parent }
}

/** files.img and what it points to. */
class OpenFiles {
  readonly #records: ReadonlyMap<number, FileRecord>
  readonly #memfds: ReadonlyMap<number, Decoded<(typeof images.MEMFD)['shape']>>
  readonly #nameless: ReadonlySet<number>
  readonly #unixNames: ReadonlyMap<number, string>

  constructor(loaded: Images) {
    const records = loaded.all(images.FILES, 'files.img')
    this.#records = new Map(records.map((record) => [record.id, record]))
    this.#memfds = new Map(loaded.all(images.MEMFD, 'memfd.img').map((memfd) => [memfd.id, memfd]))
    this.#nameless = new Set(loaded.all(images.REMAP, 'remap-fpath.img').map(({ id }) => id))
    this.#unixNames = new Map(records.flatMap(({ unix }) => (unix ? [[unix.inode, unixName(unix.name)]] : [])))
  }

  pathOf(id: number | undefined): string {
    const record = id === undefined ? undefined : this.#records.get(id)
    return record?.regular?.path ?? ''
  }

  /** None for a socket. */
  file(id: number, type: number, fd: number): ContainedFile[] {
    const record = this.#records.get(id)
    if (!record || record.inet || record.unix) return []
    const kind = FD_KINDS[type] ?? 'unknown'
    const at = (path: string, flags: number, position = 0, size = 0): ContainedFile[] => [{ fd, kind, path, flags, position, size }]
    const { regular, pipe, fifo, tty, memfd, eventfd } = record
    if (regular) return at(regular.path + (this.#nameless.has(id) ? ' (deleted)' : ''), regular.flags, regular.position, regular.size ?? 0)
    if (pipe ?? fifo) return at(`pipe:[${(pipe ?? fifo)?.pipe ?? 0}]`, (pipe ?? fifo)?.flags ?? 0)
    if (tty) return at('', tty.flags)
    if (memfd) {
      const memory = this.#memfds.get(memfd.inode)
      return at(`/memfd:${memory?.name ?? ''}`, memfd.flags, memfd.position, memory?.size ?? 0)
    }
    return at('', eventfd?.flags ?? 0)
  }

  /** None for anything but a socket. */
  socket(id: number, fd: number): ContainedSocket[] {
    const record = this.#records.get(id)
    if (record?.inet) {
      const { family, type, state, local, localPort, remote, remotePort } = record.inet
      return [
        {
          fd,
          family: family === AF_INET6 ? 'inet6' : 'inet',
          kind: SOCKET_KINDS[type] ?? 'other',
          state: TCP_STATES[state] ?? '',
          local: withPort(inetAddress(family, local), localPort),
          remote: withPort(inetAddress(family, remote), remotePort),
        },
      ]
    }
    if (record?.unix) {
      const { type, state, peer, name } = record.unix
      const connected = peer === 0 ? 'UNCONNECTED' : 'CONNECTED'
      return [
        {
          fd,
          family: 'unix',
          kind: SOCKET_KINDS[type] ?? 'other',
          state: state === LISTEN ? 'LISTEN' : connected,
          local: unixName(name),
          remote: this.#unixNames.get(peer) ?? '',
        },
      ]
    }
    return []
  }
}

/** Path with its final NUL taken off; an abstract name begins with NUL. */
const unixName = (name: string): string => (name.startsWith('\0') ? `@${name.slice(1)}` : name.replace(/\0.*$/s, ''))

/** 32-bit words as the machine reads them from network order. */
function inetAddress(family: number, words: readonly number[]): string {
  const bytes = Buffer.alloc(words.length * 4)
  words.forEach((word, index) => bytes.writeUInt32LE(word >>> 0, index * 4))
  if (family !== AF_INET6) return [...bytes.subarray(0, 4)].join('.')
  const groups = Array.from({ length: 8 }, (_, index) => (index * 2 + 2 <= bytes.length ? bytes.readUInt16BE(index * 2) : 0).toString(16))
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1)
}

const withPort = (address: string, port: number): string => (address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`)

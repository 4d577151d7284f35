/** What can be known beforehand: of a tree about to be dumped, and of a checkpoint about to be restored on this machine. */
import { readFile, readlink, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { externalKey, type OpenFile, type ProcessFacts, type Snapshot, type Socket, type StdioMode } from '../../plugins/contract/job.js'
import type { Inherit, Problem } from '../../plugins/contract/plan.js'
import { readNeeds, type NeededAddress, type NeededFile } from './contents.js'
import type { Manifest } from './manifest.js'
import type { ImageSource } from './files.js'

/** What the user said; undefined: decide by what is there. */
export interface GivenSwitches {
  readonly tcpEstablished: boolean | undefined
  readonly shellJob: boolean | undefined
  readonly fileLocks: boolean | undefined
  readonly linkRemap: boolean | undefined
}
export interface DumpSwitches {
  readonly tcpEstablished: boolean
  readonly extUnixSockets: boolean
  /** Something of the tree is, or waits to be, one end of a TCP connection. */
  readonly hasTcp: boolean
  readonly shellJob: boolean
  readonly fileLocks: boolean
  readonly linkRemap: boolean
  /** Keys of files that live on mounts the tree does not see itself. */
  readonly external: readonly string[]
  /** A terminal is open that neither the tree nor the shim holds the other side of. */
  readonly foreignTerminal: boolean
  /** The shim holds the other side of the job's terminal. */
  readonly ownTerminal: boolean
}
export interface SwitchContext {
  readonly stdio: StdioMode
  readonly given: GivenSwitches
}
export interface DumpFacts {
  readonly capabilities: ReadonlySet<string>
  readonly daemonPid: number
  /** Of the daemon. */
  readonly namespaces: { readonly pid: string; readonly user: string; readonly mnt: string; readonly net: string }
}

/** States in which a TCP socket has a peer; CRIU refuses them without tcp_established. */
const CONNECTED: ReadonlySet<string> = new Set(['ESTABLISHED', 'SYN_SENT', 'FIN_WAIT1', 'FIN_WAIT2', 'CLOSE_WAIT', 'LAST_ACK', 'CLOSING'])
const SHIM = 'cedana-shim'
/** Of a mounted file that is no more, as /proc/PID/mountinfo has it. */
const DELETED = '//deleted'
/** Device number of /dev/tty in the kernel's new encoding. */
const DEV_TTY = 5 << 8
/** Device number of /dev/ptmx, and major number of /dev/pts/N, in the kernel's new encoding. */
const PTMX = (5 << 8) | 2
const PTS_MAJORS: ReadonlySet<number> = new Set([136, 137, 138, 139, 140, 141, 142, 143])
/** Inode of the first user namespace, the same on every machine. */
const INITIAL_USER_NAMESPACE = '4026531837'
/** Kinds of descriptors that no CRIU can dump, as /proc/PID/fd shows them. */
const UNDUMPABLE = /^anon_inode:\[?(userfaultfd|perf_event|bpf-map|bpf-prog|bpf_link|landlock-ruleset|kvm-vm|kvm-vcpu)/

const major = (device: number): number => (device >>> 8) & 0xfff
const isTcp = ({ family, kind }: Socket): boolean => (family === 'inet' || family === 'inet6') && kind === 'stream'
const isConnection = (socket: Socket): boolean => isTcp(socket) && CONNECTED.has(socket.state)
const who = (process: ProcessFacts): string => `process ${process.pid} (${process.name})`
const memoryFile = (path: string): boolean => /^\/(memfd:|SYSV|dev\/zero|secretmem)/.test(path)

/** What the images take at most: each process' own memory, and the shared memory of which every sharer sees all. */
export const dumpSize = ({ processes }: Snapshot): number =>
  processes.reduce((sum, { dumpBytes }) => sum + dumpBytes, 0) + Math.max(0, ...processes.map(({ sharedBytes }) => sharedBytes))

/** Pure: what the dump of this tree needs, where the user has not decided. */
export function dumpSwitches(snapshot: Snapshot, { stdio, given }: SwitchContext): DumpSwitches {
  const files = snapshot.processes.flatMap((process) => process.files)
  const foreignTerminal = stdio !== 'tty' && hasForeignTerminal(files)
  const isDeleted = (file: OpenFile): boolean => file.isDeleted && file.type === 'regular' && !memoryFile(file.path)
  return {
    tcpEstablished: given.tcpEstablished ?? snapshot.sockets.some(isConnection),
    hasTcp: given.tcpEstablished === true || snapshot.sockets.some(isTcp),
    extUnixSockets: snapshot.sockets.some((socket) => socket.family === 'unix' && socket.state !== 'LISTEN'),
    shellJob: given.shellJob ?? (sessionOutside(snapshot) || foreignTerminal),
    fileLocks: given.fileLocks ?? files.some((file) => file.isLocked),
    linkRemap: given.linkRemap ?? files.some(isDeleted),
    external: [...new Set(externalFiles(snapshot).map(externalKey))],
    foreignTerminal,
    ownTerminal: stdio === 'tty',
  }
}

const hasForeignTerminal = (files: readonly OpenFile[]): boolean =>
  files.some((file) => file.isTty && file.deviceId !== PTMX && PTS_MAJORS.has(major(file.deviceId))) &&
  !files.some((file) => file.deviceId === PTMX)

const isDevTty = ({ deviceId }: OpenFile): boolean => deviceId === DEV_TTY
const holdersOfDevTty = ({ processes }: Snapshot): readonly ProcessFacts[] => processes.filter(({ files }) => files.some(isDevTty))

/** Of a job with a terminal: what is open as /dev/tty and means that terminal, not one that the tree made for itself. */
export function controllingTerminals(snapshot: Snapshot): readonly OpenFile[] {
  const terminal = snapshot.processes[0]?.terminal
  return holdersOfDevTty(snapshot).flatMap((process) => (process.terminal === terminal ? process.files.filter(isDevTty) : []))
}

function sessionOutside({ processes }: Snapshot): boolean {
  const pids = new Set<number>(processes.map(({ pid }) => pid))
  const [root] = processes
  return root !== undefined && !pids.has(root.session)
}

/** Only processes that see the root's mounts: the mounts of others are not in the snapshot. */
function externalFiles({ processes, mounts }: Snapshot): readonly OpenFile[] {
  const [root] = processes
  const visible = new Set(mounts.map(({ id }) => id))
  if (!root || visible.size === 0) return []
  const files = processes.filter((process) => process.namespaces.mnt === root.namespaces.mnt).flatMap((process) => process.files)
  const named = files.filter(
    (file) => ['regular', 'directory', 'character', 'block', 'fifo'].includes(file.type) && file.path.startsWith('/'),
  )
  return named.filter((file) => !visible.has(file.mountId) && !file.isTty && !memoryFile(file.path))
}

/** Descriptors to open anew for files that were external at the dump, with the flags they had. */
export function externalInherits(snapshot: Snapshot): readonly Inherit[] {
  const files = new Map(externalFiles(snapshot).map((file) => [externalKey(file), file]))
  return [...files].map(([key, { path, flags }]) => ({ key, from: { path, flags } }))
}

/** Pure: why the dump would fail, all reasons at once. */
export function dumpProblems(snapshot: Snapshot, facts: DumpFacts, switches: DumpSwitches): readonly Problem[] {
  const { processes } = snapshot
  return [
    ...rootProblems(processes[0]),
    ...namespaceProblems(processes, facts),
    ...processes.flatMap((process) => ownProblems(process, facts)),
    ...processes.flatMap((process) => process.files.flatMap((file) => fileProblems(process, file))),
    ...userProblems(processes, facts),
    ...unixProblems(snapshot, switches),
    ...switchProblems(snapshot, switches),
  ]
}

function rootProblems(root: ProcessFacts | undefined): readonly Problem[] {
  if (!root) return []
  const refuse = (id: string, message: string): readonly Problem[] => [{ severity: 'error', id, message, pid: root.pid }]
  if (root.pid === 1) return refuse('init', 'process 1 is the init of this machine and cannot be dumped')
  if (root.state === 'Z' || root.state === 'X') return refuse('zombie', `${who(root)} has ended already (zombie)`)
  return isKernelThread(root) ? refuse('kernel-thread', `${who(root)} is a kernel thread`) : []
}

/** All of them are children of kthreadd, which is always PID 2. */
export const isKernelThread = ({ pid, parentPid, args }: OfMachine): boolean =>
  args.length === 0 && ((pid === 2 && parentPid === 0) || parentPid === 2)
interface OfMachine {
  readonly pid: number
  readonly parentPid: number
  readonly args: readonly string[]
}

const NAMESPACES = { pid: 'PID', user: 'user', mnt: 'mount', net: 'network', ipc: 'IPC', uts: 'UTS', cgroup: 'cgroup' } as const
type NamespaceKind = keyof typeof NAMESPACES
const NAMESPACE_KINDS = Object.keys(NAMESPACES) as readonly NamespaceKind[]

/**
 * What CRIU refuses only when all stands still; and what it dumps and then cannot restore: several mount or network namespaces where the root has
 * none of its own, and a user namespace in which it may not mount /proc.
 */
function namespaceProblems([root, ...others]: readonly ProcessFacts[], { namespaces }: DumpFacts): readonly Problem[] {
  if (!root) return []
  const refuse = (process: ProcessFacts, message: string, hint: string): Problem => ({
    severity: 'error',
    id: 'namespace',
    message: `${who(process)} ${message}`,
    hint,
    pid: process.pid,
  })
  const mayDiffer = (kind: NamespaceKind): boolean => (kind === 'mnt' || kind === 'net') && root.namespaces[kind] !== namespaces[kind]
  for (const process of others.filter(({ state }) => state !== 'Z')) {
    const kind = NAMESPACE_KINDS.find((one) => process.namespaces[one] !== root.namespaces[one] && !mayDiffer(one))
    if (kind === undefined) continue
    return [
      refuse(process, `is in another ${NAMESPACES[kind]} namespace than ${who(root)}`, 'dump the first process inside that namespace'),
    ]
  }
  if (root.namespaces.pid !== namespaces.pid && ![root, ...others].some(({ pid }) => pid === root.session)) {
    return [refuse(root, 'is in a PID namespace of its own and its session is not', 'start it there with setsid')]
  }
  if (root.namespaces.user === namespaces.user || root.namespaces.pid !== namespaces.pid) return []
  return [
    refuse(root, 'has a user namespace of its own but no PID namespace: CRIU could not restore it', 'start it as root, or as a container'),
  ]
}

function ownProblems(process: ProcessFacts, facts: DumpFacts): readonly Problem[] {
  const { pid } = process
  if (pid === facts.daemonPid)
    return [{ severity: 'error', id: 'self', message: `the tree contains the cedana daemon itself (process ${pid})`, pid }]
  if (process.name === SHIM) {
    return [
      {
        severity: 'error',
        id: 'self',
        message: `the tree contains a cedana shim (process ${pid})`,
        hint: 'dump the job instead: cedana dump job',
        pid,
      },
    ]
  }
  if (process.tracer === 0) return []
  const message = `${who(process)} is traced by process ${process.tracer}`
  return [{ severity: 'error', id: 'traced', message, hint: 'detach the debugger or strace', pid }]
}

function fileProblems(process: ProcessFacts, file: OpenFile): readonly Problem[] {
  const { pid } = process
  if (file.path.includes('io_uring')) {
    const message = `${who(process)} uses io_uring (fd ${file.fd}), which cannot be dumped`
    return [
      {
        severity: 'error',
        id: 'io-uring',
        message,
        hint: 'start it without: UV_USE_IO_URING=0 for Node, or by its own configuration',
        pid,
      },
    ]
  }
  if (file.isSemaphore) {
    const message = `${who(process)} has an eventfd in semaphore mode (fd ${file.fd}), which CRIU would restore as an ordinary one`
    return [{ severity: 'error', id: 'eventfd-semaphore', message, pid }]
  }
  const kind = UNDUMPABLE.exec(file.path)?.[1]
  if (kind === undefined) return []
  return [
    {
      severity: 'error',
      id: 'descriptor-kind',
      message: `${who(process)} has a ${kind} descriptor (fd ${file.fd}), which cannot be dumped`,
      pid,
    },
  ]
}

/** prlimit(2) on a process of another user takes CAP_SYS_RESOURCE in that process' user namespace, which CRIU has where root made the namespace. */
function userProblems(processes: readonly ProcessFacts[], facts: DumpFacts): readonly Problem[] {
  if (facts.capabilities.has('CAP_SYS_RESOURCE')) return []
  const isForeign = (process: ProcessFacts): boolean =>
    process.state !== 'Z' &&
    process.namespaces.user.includes(INITIAL_USER_NAMESPACE) &&
    [...process.uids.slice(0, 3), ...process.gids.slice(0, 3)].some((id) => id !== 0)
  return processes.filter(isForeign).map((process) => ({
    severity: 'error',
    id: 'other-user',
    message: `CRIU lacks CAP_SYS_RESOURCE, ${who(process)} runs as uid ${process.uids[1]}, gid ${process.gids[1]}`,
    hint: 'give the daemon CAP_SYS_RESOURCE, or run the program as root',
    pid: process.pid,
  }))
}

/** CRIU knows no half of a connection, unless the user names it as one that somebody else restores. */
function unixProblems({ processes, sockets }: Snapshot, { external }: DumpSwitches): readonly Problem[] {
  return sockets.flatMap(({ pid, fd, inode, local, peerPid }) => {
    const process = processes.find((one) => one.pid === pid)
    if (peerPid === 0 || process === undefined || external.includes(`unix[${inode}]`)) return []
    const name = local === '' ? '' : ` ${local}`
    const message = `${who(process)} has the unix socket${name} (fd ${fd}) connected to process ${peerPid}, which is not part of the tree`
    const hint = 'close the connection first, or dump a tree with both processes'
    return [{ severity: 'error', id: 'unix-peer', message, hint, pid } as const]
  })
}

function switchProblems(snapshot: Snapshot, switches: DumpSwitches): readonly Problem[] {
  const problems: Problem[] = []
  const [root] = snapshot.processes
  const connections = snapshot.sockets.filter(isConnection)
  if (connections.length > 0 && !switches.tcpEstablished) {
    const list = connections.map((socket) => `${socket.local} → ${socket.remote} (process ${socket.pid}, fd ${socket.fd})`).join(', ')
    problems.push({
      severity: 'error',
      id: 'tcp-established',
      message: `there are connected TCP sockets: ${list}`,
      hint: 'use --tcp-established',
    })
  }
  const terminals = switches.ownTerminal ? new Map(holdersOfDevTty(snapshot).map((process) => [process.terminal, process])) : undefined
  if (terminals && terminals.size > 1) {
    const message = `${[...terminals.values()].map(who).join(' and ')} have /dev/tty of different terminals open, which CRIU cannot tell apart`
    problems.push({ severity: 'error', id: 'dev-tty', message, hint: 'end one of them first' })
  }
  const led = snapshot.processes.filter(({ pid, session, terminal, state }) => terminal !== 0 && state !== 'Z' && pid !== session)
  const losers = led.filter(({ session }) => snapshot.processes.some(({ pid }) => pid === session))
  if (losers.length > 0) {
    const message = `${losers.map(who).join(', ')} will have no controlling terminal after a restore, only ${losers.length === 1 ? 'its' : 'their'} session's leader: /dev/tty cannot be opened, nor job control be done, by others`
    problems.push({ severity: 'warning', id: 'terminal-lost', message })
  }
  const console = snapshot.mounts.find(({ filesystem, root: mounted }) => filesystem === 'devpts' && mounted.endsWith(DELETED))
  if (console) {
    const message = `the terminal that is mounted at ${console.path} is gone, since who held its other side has ended: CRIU could not restore it`
    problems.push({
      severity: 'error',
      id: 'terminal-gone',
      message,
      hint: 'start it again, with a terminal that somebody keeps or with none',
    })
  }
  if (root && !switches.shellJob && sessionOutside(snapshot)) {
    const message = `${who(root)} belongs to session ${root.session}, whose leader is not part of the tree`
    problems.push({ severity: 'error', id: 'session-outside', message, hint: 'use --shell-job', pid: root.pid })
  }
  if (root && !switches.shellJob && switches.foreignTerminal) {
    problems.push({
      severity: 'error',
      id: 'terminal-outside',
      message: `${who(root)} has a terminal open that is not part of the tree`,
      hint: 'use --shell-job',
      pid: root.pid,
    })
  }
  return problems
}

/** This machine now, as far as the checkpoint cares. */
export interface LiveFacts {
  readonly arch: string
  readonly cpuFlags: readonly string[]
  readonly kernel: string
  readonly criuVersion: number
  /** Command of each process or thread id of the checkpoint that is in use. */
  readonly processes: ReadonlyMap<number, string>
  /** Files the checkpoint will open that are not as they were. */
  readonly files: readonly FileChange[]
  /** Addresses it will bind that are taken. */
  readonly taken: readonly NeededAddress[]
}
export interface FileChange extends NeededFile {
  /** undefined: it does not exist. */
  readonly now: { readonly size: number; readonly mode: number } | undefined
}
interface MachineFacts {
  readonly kernel: string
  readonly arch: string
  readonly cpu: { readonly flags: readonly string[] }
}

/** Ids that CRIU will create: processes, threads, and the leaders of sessions and groups that died before the dump. */
function neededIds({ processes }: Snapshot): readonly number[] {
  const [root] = processes
  const outside = new Set([root?.session, root?.processGroup])
  const ids = new Set<number>()
  for (const process of processes) {
    for (const id of [process.pid, ...process.threads]) ids.add(id)
    for (const id of [process.session, process.processGroup]) if (!outside.has(id)) ids.add(id)
  }
  return [...ids].filter((id) => id > 0)
}

/** `images` undefined: files and addresses are not looked at. */
export async function liveFacts(snapshot: Snapshot, criuVersion: number, machine: MachineFacts, images?: ImageSource): Promise<LiveFacts> {
  const [root] = snapshot.processes
  const needs = images ? await readNeeds(images) : { files: [], addresses: [] }
  const [sameIds, sameMounts, sameNetwork] = await Promise.all([
    isOwnNamespace('pid', root?.namespaces.pid),
    isOwnNamespace('mnt', root?.namespaces.mnt),
    isOwnNamespace('net', root?.namespaces.net),
  ])
  return {
    arch: machine.arch,
    cpuFlags: machine.cpu.flags,
    kernel: machine.kernel,
    criuVersion,
    // In a PID namespace of its own a tree gets the ids it had, and others outside.
    processes: sameIds ? await commandsOf(neededIds(snapshot)) : new Map(),
    files: sameMounts ? await changedFiles(needs.files, root?.rootDirectory ?? '/') : [],
    taken: sameNetwork ? await takenAddresses(needs.addresses) : [],
  }
}

async function isOwnNamespace(kind: string, inode: string | undefined): Promise<boolean> {
  const own = /\d+/.exec(await readlink(`/proc/self/ns/${kind}`))?.[0]
  return own !== undefined && inode?.includes(own) === true
}

async function commandsOf(ids: readonly number[]): Promise<ReadonlyMap<number, string>> {
  const commands = new Map<number, string>()
  await Promise.all(
    ids.map(async (id) => {
      const cmdline = await readFile(`/proc/${id}/cmdline`, 'utf8').catch(() => undefined)
      if (cmdline === undefined) return
      const name = (await readFile(`/proc/${id}/comm`, 'utf8').catch(() => '')).trim()
      commands.set(id, cmdline.replaceAll('\0', ' ').trim() || `[${name}]`)
    }),
  )
  return commands
}

const S_IFMT = 0o170000
const S_IFREG = 0o100000
const S_IFDIR = 0o040000

async function changedFiles(files: readonly NeededFile[], root: string): Promise<readonly FileChange[]> {
  const isPlain = ({ mode }: NeededFile): boolean => mode === undefined || (mode & S_IFMT) === S_IFREG || (mode & S_IFMT) === S_IFDIR
  const looked = await Promise.all(
    files.filter(isPlain).map(async (file): Promise<FileChange> => {
      const stats = await stat(join(root, file.path)).catch(() => undefined)
      return { ...file, now: stats && { size: stats.size, mode: stats.mode } }
    }),
  )
  return looked.filter(
    ({ now, size, mode }) =>
      !now || (size !== undefined && isRegular(mode) && now.size !== size) || (mode !== undefined && now.mode !== mode),
  )
}

const isRegular = (mode: number | undefined): boolean => mode === undefined || (mode & S_IFMT) === S_IFREG

/** Rows of /proc/net: `0: 0100007F:1F90 00000000:0000 0A …`, addresses in words as the machine reads them. */
async function takenAddresses(needed: readonly NeededAddress[]): Promise<readonly NeededAddress[]> {
  if (needed.length === 0) return []
  const used = { tcp: new Map<number, string[]>(), udp: new Map<number, string[]>() }
  for (const table of ['tcp', 'tcp6', 'udp', 'udp6'] as const) {
    const protocol = table.startsWith('tcp') ? 'tcp' : 'udp'
    const text = await readFile(`/proc/self/net/${table}`, 'utf8').catch(() => '')
    for (const [, address = '', port = '', state] of text.matchAll(/^\s*\d+: ([0-9A-F]+):([0-9A-F]{4}) \S+ ([0-9A-F]{2})/gm)) {
      if (protocol === 'tcp' && state !== '0A') continue
      const number = parseInt(port, 16)
      used[protocol].set(number, [...(used[protocol].get(number) ?? []), address])
    }
  }
  const clashes = (address: string, other: string): boolean => isWildcard(address) || /^0+$/.test(other) || toHex(address) === other
  return needed.filter(
    ({ protocol, address, port, isShared }) => !isShared && used[protocol].get(port)?.some((other) => clashes(address, other)),
  )
}

const isWildcard = (address: string): boolean => address === '0.0.0.0' || address === '::'

/** IPv4 only: IPv6 clashes are found through the wildcard, which is what servers listen on; the rest is CRIU's to say. */
const toHex = (address: string): string =>
  address
    .split('.')
    .reverse()
    .map((part) => Number(part).toString(16).toUpperCase().padStart(2, '0'))
    .join('')

/**
 * Instruction sets a program may have found at its start and will go on using, and registers the kernel saves for it: without them it dies
 * of SIGILL after the restore. Other flags are hints for the kernel.
 */
const NEEDED_FLAGS =
  /^(sse\w*|ssse3|avx\w*|amx_\w+|aes|pclmulqdq|bmi[12]|fma4?|f16c|adx|sha_ni|vaes|vpclmulqdq|gfni|movbe|popcnt|abm|rdrand|rdseed|fsgsbase|xsave\w*|pku|ospke|cx16|asimd\w*|sve\w*|sme\w*|sha\d*|pmull|atomics)$/

/**
 * Pure: why the restore would fail here, all reasons at once. `replaced`: keys of files that are given anew (paths without their leading
 * slash), which need not be as they were.
 */
export function restoreProblems(
  manifest: Manifest,
  snapshot: Snapshot,
  live: LiveFacts,
  replaced: ReadonlySet<string> = new Set(),
): readonly Problem[] {
  return [...machineProblems(manifest, live), ...idProblems(snapshot, live), ...changeProblems(snapshot, live, replaced)]
}

function machineProblems({ host, criuVersion }: Manifest, live: LiveFacts): readonly Problem[] {
  if (host.arch !== live.arch)
    return [{ severity: 'error', id: 'architecture', message: `the checkpoint is of a ${host.arch} machine, this is ${live.arch}` }]
  const problems: Problem[] = []
  const present = new Set(live.cpuFlags)
  const missing = host.cpu.flags.filter((flag) => NEEDED_FLAGS.test(flag) && !present.has(flag))
  if (missing.length > 0) {
    const message = `this CPU lacks features of the one at the dump (${host.cpu.model}): ${missing.join(', ')}`
    problems.push({ severity: 'error', id: 'cpu-features', message, hint: 'restore on a machine that has them' })
  }
  if (live.criuVersion < criuVersion) {
    problems.push({
      severity: 'warning',
      id: 'criu-older',
      message: 'this CRIU is older than the one that made the checkpoint',
      hint: 'update CRIU if the restore fails',
    })
  }
  if (isOlderKernel(live.kernel, host.kernel)) {
    problems.push({ severity: 'warning', id: 'kernel-older', message: `kernel ${live.kernel} is older than ${host.kernel} at the dump` })
  }
  return problems
}

function isOlderKernel(one: string, other: string): boolean {
  const numbers = (release: string): readonly number[] =>
    release
      .split('.')
      .slice(0, 2)
      .map((part) => parseInt(part, 10))
  const [[major = 0, minor = 0], [otherMajor = 0, otherMinor = 0]] = [numbers(one), numbers(other)]
  return major < otherMajor || (major === otherMajor && minor < otherMinor)
}

function idProblems(snapshot: Snapshot, live: LiveFacts): readonly Problem[] {
  const pids = new Set<number>(snapshot.processes.map(({ pid }) => pid))
  return neededIds(snapshot).flatMap((id): Problem[] => {
    const command = live.processes.get(id)
    if (command === undefined) return []
    const what = pids.has(id) ? 'PID' : 'thread or session id'
    return [
      {
        severity: 'error',
        id: 'pid-in-use',
        message: `${what} ${id} is in use by: ${command}`,
        hint: 'end that process, or restore on another machine',
        pid: id,
      },
    ]
  })
}

function changeProblems(snapshot: Snapshot, live: LiveFacts, replaced: ReadonlySet<string>): readonly Problem[] {
  const directories = new Set(snapshot.processes.map(({ workingDirectory }) => workingDirectory))
  const files = live.files.filter(({ path }) => !replaced.has(path.slice(1)))
  const changes = files.map(({ path, size, mode, now }): Problem => {
    const hint = 'put it back as it was at the dump'
    if (!now) {
      const id = directories.has(path) ? 'cwd-missing' : 'file-missing'
      return { severity: 'error', id, message: `${directories.has(path) ? 'working directory' : 'file'} ${path} does not exist`, hint }
    }
    if (size !== undefined && isRegular(mode) && now.size !== size) {
      return { severity: 'error', id: 'file-changed', message: `file ${path} has ${now.size} bytes now and had ${size} at the dump`, hint }
    }
    return {
      severity: 'error',
      id: 'file-mode',
      message: `file ${path} has mode ${octal(now.mode)} now and had ${octal(mode ?? 0)} at the dump`,
      hint,
    }
  })
  const ports = live.taken.map(({ protocol, address, port }): Problem => {
    const hint = `stop the program that has it (see ss -${protocol === 'tcp' ? 'lt' : 'lu'}np)`
    return { severity: 'error', id: 'port-in-use', message: `${protocol} address ${address}:${port} is in use`, hint }
  })
  return [...changes, ...ports]
}

const octal = (mode: number): string => (mode & 0o7777).toString(8).padStart(4, '0')

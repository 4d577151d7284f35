import { createServer, type AddressInfo } from 'node:net'
import { chmodSync, mkdtempSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { OpenFile, Pid, ProcessFacts, Snapshot, Socket } from '../../plugins/contract/job.js'
import type { Manifest } from './manifest.js'
import {
  dumpProblems,
  dumpSwitches,
  externalInherits,
  liveFacts,
  restoreProblems,
  type DumpSwitches,
  type LiveFacts,
  type SwitchContext,
} from './preflight.js'

const file = (changes: Partial<OpenFile> = {}): OpenFile => ({
  fd: 3,
  path: '/srv/data',
  type: 'regular',
  flags: 0,
  position: 0,
  mountId: 21,
  inode: '4711',
  device: 0xfe00,
  deviceId: 0,
  isTty: false,
  isDeleted: false,
  isLocked: false,
  isSemaphore: false,
  ...changes,
})
const facts = (changes: Partial<ProcessFacts> = {}): ProcessFacts => ({
  pid: 100 as Pid,
  innerPid: 100,
  parentPid: 1 as Pid,
  processGroup: 100,
  session: 100,
  startTicks: '1',
  state: 'S',
  name: 'train',
  args: ['train'],
  executable: '/bin/train',
  workingDirectory: '/srv',
  rootDirectory: '/',
  uids: [0, 0, 0, 0],
  gids: [0, 0, 0, 0],
  groups: [],
  threads: [100],
  terminal: 0,
  seccomp: 0,
  residentBytes: 0,
  dumpBytes: 0,
  sharedBytes: 0,
  tracer: 0,
  namespaces: { cgroup: '1', ipc: '2', mnt: '3', net: '4', pid: '5', user: '4026531837', uts: '7' },
  cgroups: [],
  files: [],
  ...changes,
})
const mount = { id: 21, parentId: 1, device: '254:0', root: '/', path: '/', options: 'rw', filesystem: 'ext4', source: '/dev/vda' }
const tree = (processes: readonly ProcessFacts[] = [facts()], sockets: readonly Socket[] = []): Snapshot => ({
  target: { pid: 100 as Pid, startTicks: '1', bootId: 'b' },
  processes,
  sockets,
  mounts: [mount],
})
const tcp = (state: string, changes: Partial<Socket> = {}): Socket => ({
  pid: 100 as Pid,
  fd: 5,
  inode: '9',
  family: 'inet',
  kind: 'stream',
  state,
  local: '10.0.0.1:80',
  remote: '10.0.0.2:4000',
  peerPid: 0,
  ...changes,
})
const pts = file({ fd: 0, path: '/dev/pts/3', type: 'character', isTty: true, device: 0x1a, deviceId: (136 << 8) | 3 })
const undecided = { tcpEstablished: undefined, shellJob: undefined, fileLocks: undefined, linkRemap: undefined }
const switches = (snapshot: Snapshot, changes: Partial<SwitchContext> = {}): DumpSwitches =>
  dumpSwitches(snapshot, { stdio: 'none', given: undecided, ...changes })
const namespaces = { pid: '5', user: '4026531837', mnt: '3', net: '4' }
const rights = { capabilities: new Set(['CAP_SYS_RESOURCE']), daemonPid: 7, namespaces }
const ids = (snapshot: Snapshot, changes: Partial<SwitchContext> = {}, host = rights) =>
  dumpProblems(snapshot, host, switches(snapshot, changes)).map(({ id }) => id)

it('names who is at the other end of a unix connection', () => {
  const socket = tcp('CONNECTED', { family: 'unix', local: '', remote: '', inode: '77', peerPid: 4711 })
  const snapshot = tree([facts()], [socket])
  expect(dumpProblems(snapshot, rights, switches(snapshot))).toEqual([
    expect.objectContaining({ severity: 'error', id: 'unix-peer', message: expect.stringMatching(/fd 5.* to process 4711,/) as string }),
  ])
  expect(dumpProblems(snapshot, rights, { ...switches(snapshot), external: ['unix[77]'] })).toEqual([])
  const inside = tree([facts()], [{ ...socket, peerPid: 0 }])
  expect(ids(inside)).toEqual([])
})

describe('switches of a dump', () => {
  it('are all off for a plain process', () => {
    expect(switches(tree())).toEqual({
      tcpEstablished: false,
      hasTcp: false,
      extUnixSockets: false,
      shellJob: false,
      fileLocks: false,
      linkRemap: false,
      external: [],
      foreignTerminal: false,
      ownTerminal: false,
    })
  })

  it('refuse /dev/tty of two terminals, which look alike', () => {
    const devTty = file({ fd: 10, path: '/dev/tty', type: 'character', isTty: true, deviceId: 5 << 8 })
    const own = facts({ files: [pts, devTty], terminal: 34816 })
    expect(ids(tree([own, facts({ files: [devTty], terminal: 34817 })]), { stdio: 'tty' })).toEqual(['dev-tty'])
    expect(ids(tree([own, facts({ files: [devTty], terminal: 34816 })]), { stdio: 'tty' })).toEqual([])
  })

  it('refuse a terminal that is mounted and gone', () => {
    const mounted = { ...mount, path: '/dev/console', filesystem: 'devpts' }
    expect(ids({ ...tree(), mounts: [{ ...mounted, root: '/0//deleted' }] })).toEqual(['terminal-gone'])
    expect(ids({ ...tree(), mounts: [{ ...mounted, root: '/0' }] })).toEqual([])
  })

  it('follow the sockets of the tree', () => {
    expect(switches(tree(undefined, [tcp('LISTEN'), tcp('CLOSE')]))).toMatchObject({ tcpEstablished: false, hasTcp: true })
    expect(switches(tree(undefined, [tcp('CLOSE_WAIT', { family: 'inet6' })])).tcpEstablished).toBe(true)
    expect(switches(tree(undefined, [tcp('ESTABLISHED', { kind: 'datagram' })]))).toMatchObject({ tcpEstablished: false, hasTcp: false })
    expect(switches(tree(undefined, [tcp('CONNECTED', { family: 'unix' })]))).toMatchObject({ tcpEstablished: false, extUnixSockets: true })
  })

  it('follow session and terminal', () => {
    expect(switches(tree([facts({ session: 50 })])).shellJob).toBe(true)
    const withTerminal = tree([facts({ files: [pts] })])
    expect(switches(withTerminal)).toMatchObject({ shellJob: true, foreignTerminal: true })
    expect(switches(withTerminal, { stdio: 'tty' })).toMatchObject({ shellJob: false, foreignTerminal: false })
    const master = file({ fd: 9, path: '/dev/ptmx', type: 'character', isTty: true, deviceId: (5 << 8) | 2 })
    expect(switches(tree([facts({ files: [pts, master] })])).foreignTerminal).toBe(false)
  })

  it('follow locks and deleted files', () => {
    expect(switches(tree([facts({ files: [file({ isLocked: true })] })])).fileLocks).toBe(true)
    expect(switches(tree([facts({ files: [file()] })])).fileLocks).toBe(false)
    expect(switches(tree([facts({ files: [file({ path: '/a (deleted)', isDeleted: true })] })])).linkRemap).toBe(true)
    expect(switches(tree([facts({ files: [file({ path: '/memfd:a (deleted)', isDeleted: true })] })])).linkRemap).toBe(false)
  })

  it('are the user’s where he has decided', () => {
    const given = { tcpEstablished: false, shellJob: false, fileLocks: true, linkRemap: true }
    expect(switches(tree([facts({ session: 50 })], [tcp('ESTABLISHED')]), { given })).toMatchObject(given)
  })

  it('name files on mounts the tree does not see', () => {
    const outside = file({ mountId: 0x1b, inode: String(0x210285), path: '/extf', flags: 2 })
    const snapshot = tree([facts({ files: [outside, outside, file(), file({ mountId: 9, path: 'pipe:[1]', type: 'fifo' })] })])
    expect(switches(snapshot).external).toEqual(['file[1b:210285]'])
    expect(externalInherits(snapshot)).toEqual([{ key: 'file[1b:210285]', from: { path: '/extf', flags: 2 } }])
  })
})

describe('problems of a dump', () => {
  it('are none for a plain process', () => {
    expect(ids(tree())).toEqual([])
  })

  it.each([
    ['init', facts({ pid: 1 as Pid, session: 1 })],
    ['zombie', facts({ state: 'Z', executable: '' })],
    ['kernel-thread', facts({ pid: 100 as Pid, parentPid: 2 as Pid, executable: '', args: [] })],
    ['self', facts({ name: 'cedana-shim' })],
    ['traced', facts({ tracer: 5 })],
    ['io-uring', facts({ files: [file({ path: 'anon_inode:[io_uring]', type: 'anonymous' })] })],
    ['descriptor-kind', facts({ files: [file({ path: 'anon_inode:[userfaultfd]', type: 'anonymous' })] })],
  ])('%s', (id, process) => {
    expect(ids(tree([process]))).toEqual([id])
  })

  it('self', () => {
    expect(ids(tree(), {}, { ...rights, daemonPid: 100 })).toEqual(['self'])
  })

  it('name process, descriptor and remedy', () => {
    const snapshot = tree([facts({ files: [file({ fd: 19, path: 'anon_inode:[io_uring]', type: 'anonymous' })] })])
    expect(dumpProblems(snapshot, rights, switches(snapshot))[0]).toMatchObject({
      message: 'process 100 (train) uses io_uring (fd 19), which cannot be dumped',
      hint: expect.stringContaining('UV_USE_IO_URING=0') as string,
    })
  })

  it('are other users where CRIU may not read their limits', () => {
    const weak = { capabilities: new Set<string>(), daemonPid: 7, namespaces }
    expect(ids(tree(), {}, weak)).toEqual([])
    expect(ids(tree([facts({ uids: [33, 33, 33, 33] })]), {}, weak)).toEqual(['other-user'])
    expect(ids(tree([facts({ gids: [0, 33, 0, 0] })]), {}, weak)).toEqual(['other-user'])
    expect(ids(tree([facts({ uids: [33, 33, 33, 33] })]), {}, rights)).toEqual([])
    const owned = facts({ uids: [33, 33, 33, 33], namespaces: { ...facts().namespaces, pid: '77', user: '4026532000' } })
    expect(ids(tree([owned]), {}, weak)).toEqual([])
  })

  it('are namespaces that CRIU cannot dump, or not restore', () => {
    const inside = (changes: Partial<ProcessFacts['namespaces']>, pid = 100): ProcessFacts =>
      facts({ pid: pid as Pid, namespaces: { ...facts().namespaces, ...changes } })
    for (const kind of ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'user', 'uts']) {
      expect(ids(tree([facts(), inside({ [kind]: '77' }, 101)])), kind).toEqual(['namespace'])
    }
    for (const kind of ['mnt', 'net']) expect(ids(tree([inside({ [kind]: '77' }), inside({ [kind]: '88' }, 101)])), kind).toEqual([])
    expect(ids(tree([inside({ user: '88' })]))).toEqual(['namespace'])
    expect(ids(tree([inside({ user: '88', pid: '77' })]))).toEqual([])
    const outside = { ...inside({ pid: '77' }), session: 50 }
    expect(ids(tree([outside]))).toEqual(['namespace'])
  })

  it('come from switches the user has turned off', () => {
    const given = { ...undecided, tcpEstablished: false, shellJob: false }
    const snapshot = tree([facts({ session: 50, files: [pts] })], [tcp('ESTABLISHED')])
    expect(ids(snapshot)).toEqual([])
    expect(ids(snapshot, { given })).toEqual(['tcp-established', 'session-outside', 'terminal-outside'])
  })
})

const manifest = {
  host: { id: 'x', name: 'x', kernel: '6.18.44', arch: 'x64', cpu: { vendor: '', model: 'EPYC', flags: ['fpu', 'avx2', 'erms'] } },
  criuVersion: 40201,
} as unknown as Manifest
const live: LiveFacts = {
  arch: 'x64',
  cpuFlags: ['fpu', 'avx2'],
  kernel: '6.18.1',
  criuVersion: 40201,
  processes: new Map(),
  files: [],
  taken: [],
}
const restoreIds = (changes: Partial<LiveFacts>, snapshot = tree()) =>
  restoreProblems(manifest, snapshot, { ...live, ...changes }).map(({ id }) => id)

describe('problems of a restore', () => {
  it('are none on the same machine, nor for CPU flags that are hints', () => {
    expect(restoreIds({})).toEqual([])
  })

  it('are of the machine', () => {
    expect(restoreIds({ arch: 'arm64' })).toEqual(['architecture'])
    expect(restoreIds({ cpuFlags: ['fpu'] })).toEqual(['cpu-features'])
    expect(restoreIds({ criuVersion: 31700, kernel: '6.1.0' })).toEqual(['criu-older', 'kernel-older'])
  })

  it('are ids in use, with who has them', () => {
    const problems = restoreProblems(manifest, tree([facts({ threads: [100, 102] })]), {
      ...live,
      processes: new Map([
        [100, 'sleep 9'],
        [102, '[x]'],
        [103, 'y'],
      ]),
    })
    expect(problems.map(({ message }) => message)).toEqual(['PID 100 is in use by: sleep 9', 'thread or session id 102 is in use by: [x]'])
  })

  it('are all files at once, but for those given anew', () => {
    const files = [
      { path: '/srv', size: undefined, mode: 0o040755, now: undefined },
      { path: '/a', size: 3, mode: 0o100644, now: undefined },
      { path: '/b', size: 3, mode: 0o100644, now: { size: 7, mode: 0o100644 } },
      { path: '/c', size: 3, mode: 0o100644, now: { size: 3, mode: 0o100600 } },
    ]
    expect(restoreIds({ files })).toEqual(['cwd-missing', 'file-missing', 'file-changed', 'file-mode'])
    expect(restoreProblems(manifest, tree(), { ...live, files }, new Set(['a', 'b'])).map(({ id }) => id)).toEqual([
      'cwd-missing',
      'file-mode',
    ])
  })

  it('are found on the live machine', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'preflight-'))
    const path = join(directory, 'data')
    writeFileSync(path, 'abc')
    chmodSync(path, 0o600)
    const server = createServer().listen(0, '127.0.0.1')
    await new Promise((resolve) => server.once('listening', resolve))
    const { port } = server.address() as AddressInfo
    const { executable, images } = dumpOf({ path, mode: statSync(path).mode, size: 4, port })
    const inode = (kind: string) => /\d+/.exec(readlinkSync(`/proc/self/ns/${kind}`))?.[0] ?? ''
    const root = facts({
      pid: process.pid as Pid,
      threads: [process.pid],
      namespaces: { ...facts().namespaces, mnt: inode('mnt'), net: inode('net'), pid: inode('pid') },
    })
    const found = await liveFacts(tree([root]), 40201, { kernel: '6.18', arch: 'x64', cpu: { flags: [] } }, images)
    expect(found.processes.get(process.pid)).toMatch(/node|vitest/)
    expect(found.files.map((change) => change.path)).toEqual([executable, path])
    expect(found.taken).toEqual([{ protocol: 'tcp', address: '127.0.0.1', port, isShared: false }])
    server.close()
    rmSync(directory, { recursive: true })
  })
})

/** files.img of a dump with a file, a program that is gone, and a listening socket. */
function dumpOf({
  path,
  mode,
  size,
  port,
}: {
  readonly path: string
  readonly mode: number
  readonly size: number
  readonly port: number
}) {
  const varint = (value: number): number[] => (value < 128 ? [value] : [(value & 127) | 128, ...varint(Math.floor(value / 128))])
  const uint = (number: number, value: number): number[] => [...varint(number << 3), ...varint(value)]
  const bytes = (number: number, content: readonly number[]): number[] => [
    ...varint((number << 3) | 2),
    ...varint(content.length),
    ...content,
  ]
  const regular = (id: number, name: string): number[] => [
    ...uint(1, 1),
    ...uint(2, id),
    ...bytes(3, [...bytes(6, [...Buffer.from(name)]), ...uint(8, size), ...uint(10, mode)]),
  ]
  const socket = [
    ...uint(1, 4),
    ...uint(2, 3),
    ...bytes(4, [...uint(3, 2), ...uint(4, 1), ...uint(6, 10), ...uint(7, port), ...uint(11, 0x0100007f)]),
  ]
  const word = (value: number): Buffer => {
    const buffer = Buffer.alloc(4)
    buffer.writeUInt32LE(value)
    return buffer
  }
  const executable = '/no/such/program'
  const records = [regular(1, executable), regular(2, path), socket].flatMap((record) => [word(record.length), Buffer.from(record)])
  const content = Buffer.concat([word(0x54564319), word(0x56303138), ...records])
  const images = {
    path: 'test',
    list: () => Promise.resolve([{ name: 'files.img', size: content.length }]),
    read: (names: readonly string[]) => Promise.resolve(new Map(names.includes('files.img') ? [['files.img', content]] : [])),
  }
  return { executable, images }
}

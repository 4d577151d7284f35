import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, it } from 'vitest'
import { until } from '../../test/support/wait.js'
import { native, type PageServerOptions } from '../index.js'

const CRIU = ['/opt/cedana/criu/bin/criu', '/usr/sbin/criu'].find((path) => existsSync(path)) ?? ''
const IS_ROOT = process.getuid?.() === 0
const PAGE = 4096
const ADD = 1,
  HOLE = 2,
  OPEN = 3,
  OPEN2 = 4,
  PARENT = 5,
  ADD_F = 6,
  GET = 7,
  CLOSE = 0x1023,
  FORCE_CLOSE = 0x1024
const PRESENT = 4,
  LAZY = 2

const undo: (() => void)[] = []
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step()
})

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'cedana-pages-'))
  undo.push(() => rmSync(path, { recursive: true }))
  return path
}

/** A file system of a few MiB. */
function smallFolder(mib: number): string {
  const path = folder()
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${mib}m`, 'cedana-test', path])
  undo.push(() => execFileSync('umount', ['-l', path]))
  return path
}

function server(path: string, options: Partial<PageServerOptions> = {}) {
  const directoryFd = openSync(path, 'r')
  const { socketFd, peerFd: socket } = native.pageSocket()
  const opened = {
    socketFd,
    packer: null,
    directoryFd,
    criuVersion: 40201,
    memoryBytes: 32 << 20,
    dropZeroPages: false,
    rootPid: null,
  }
  const server = native.pageServerOpen({ ...opened, ...options })
  closeSync(directoryFd)
  return { server, socket }
}

/** What CRIU says, without CRIU. */
class Client {
  readonly socket: net.Socket
  private readonly received: Buffer[] = []
  readonly closed: Promise<unknown>

  constructor(
    fd: number,
    private readonly wide = true,
  ) {
    this.socket = new net.Socket({ fd })
    this.socket.on('data', (bytes: Buffer) => this.received.push(bytes))
    this.socket.on('error', () => undefined)
    this.closed = new Promise((resolve) => this.socket.once('close', resolve))
    undo.push(() => this.socket.destroy())
  }

  say(command: number, target: number, address = 0, pages = 0, flags = 0, data?: Uint8Array): void {
    const header = Buffer.alloc(this.wide ? 32 : 24)
    header.writeUInt32LE((command | (flags << 16)) >>> 0, 0)
    if (this.wide) header.writeBigUInt64LE(BigInt(pages), 8)
    else header.writeUInt32LE(pages, 4)
    header.writeBigUInt64LE(BigInt(address), header.length - 16)
    header.writeBigUInt64LE(BigInt(target), header.length - 8)
    this.socket.write(data ? Buffer.concat([header, data]) : header)
  }

  async hear(size: number): Promise<Buffer> {
    for (let i = 0; i < 2000 && Buffer.concat(this.received).length < size; i++) await sleep(5)
    return Buffer.concat(this.received.splice(0))
  }
}

const process_ = (id: number) => id * 256 + 1
const shared = (id: number) => id * 256 + 2

function bytesOf(pages: number, start: number): Uint8Array {
  const bytes = new Uint8Array(pages * PAGE)
  for (let page = 0; page < pages; page++) bytes.fill(page + start, page * PAGE, (page + 1) * PAGE - (page % 7))
  return bytes
}

/** The entries of a pagemap file as [address, pages, flags, pages again from 4.2 on]. */
function pagemap(path: string): { pagesId: number; entries: (number | undefined)[][] } {
  const image = readFileSync(path)
  expect([image.readUInt32LE(0), image.readUInt32LE(4)]).toEqual([0x54564319, 0x56084025])
  const records: Map<number, number>[] = []
  for (let at = 8; at < image.length;) {
    const end = at + 4 + image.readUInt32LE(at)
    const fields = new Map<number, number>()
    const varint = () => {
      for (let value = 0, unit = 1; ; unit *= 128) {
        const byte = image[at++] as number
        value += (byte & 127) * unit
        if (byte < 128) return value
      }
    }
    for (at += 4; at < end;) fields.set(varint() >> 3, varint())
    records.push(fields)
  }
  const [head, ...entries] = records
  return { pagesId: head?.get(1) ?? 0, entries: entries.map((entry) => [1, 2, 4, 5].map((field) => entry.get(field))) }
}

describe('the page server', () => {
  it.each([
    [40101, false],
    [40201, true],
  ])('writes what CRIU %i sends, run by run', async (criuVersion, wide) => {
    const path = folder()
    const { server: handle, socket } = server(path, { criuVersion })
    const criu = new Client(socket, wide)
    criu.say(PARENT, process_(77))
    expect(await criu.hear(4)).toEqual(Buffer.alloc(4))
    criu.say(OPEN2, process_(77))
    expect(await criu.hear(1)).toEqual(Buffer.alloc(1))
    criu.say(ADD_F, process_(77), 0x10000, 2, PRESENT, bytesOf(2, 1))
    criu.say(ADD_F, process_(77), 0x12000, 1, PRESENT, bytesOf(1, 9)) // goes on where the last ended
    criu.say(ADD, process_(77), 0x13000, 1, 0, bytesOf(1, 20))
    criu.say(ADD_F, process_(77), 0x14000, 1, PRESENT | LAZY, bytesOf(1, 30)) // other flags
    criu.say(ADD_F, process_(77), 0x7fff12345000, 1, PRESENT, new Uint8Array(PAGE))
    criu.say(OPEN, shared(501))
    criu.say(ADD_F, shared(501), 0, 3, PRESENT, bytesOf(3, 40))
    criu.say(FORCE_CLOSE, 0)
    expect(await criu.hear(4)).toEqual(Buffer.alloc(4))
    const { files, receivedBytes, zeroBytes } = await native.pageServerFinish(handle)
    expect([receivedBytes, zeroBytes]).toEqual([9 * PAGE, 0])
    expect(native.pageServerProgress(handle)).toMatchObject({ receivedBytes: 9 * PAGE })
    expect(files.map(({ name }) => name).sort()).toEqual(readdirSync(path).sort())

    const wideCount = (n: number) => (wide ? n : undefined)
    expect(pagemap(join(path, 'pagemap-77.img'))).toEqual({
      pagesId: 1,
      entries: [
        [0x10000, 4, PRESENT, wideCount(4)],
        [0x14000, 1, PRESENT | LAZY, wideCount(1)],
        [0x7fff12345000, 1, PRESENT, wideCount(1)],
      ],
    })
    expect(pagemap(join(path, 'pagemap-shmem-501.img'))).toEqual({ pagesId: 2, entries: [[0, 3, PRESENT, wideCount(3)]] })
    expect(
      readFileSync(join(path, 'pages-1.img')).equals(
        Buffer.concat([bytesOf(2, 1), bytesOf(1, 9), bytesOf(1, 20), bytesOf(1, 30), new Uint8Array(PAGE)]),
      ),
    ).toBe(true)
    expect(readFileSync(join(path, 'pages-2.img')).equals(bytesOf(3, 40))).toBe(true)
    const fd = openSync(path, 'r')
    expect(
      await native.digestFiles(
        fd,
        files.map(({ name }) => name),
        false,
      ),
    ).toEqual(files)
    closeSync(fd)
  })

  it.each([
    ['little memory', { memoryBytes: 1 }],
    ['much memory', { memoryBytes: 1 << 28 }],
  ])('takes much data with %s', async (_, options) => {
    const path = folder()
    const { server: handle, socket } = server(path, options)
    await native.pageServerPrepare(handle, 20 << 20)
    const criu = new Client(socket)
    criu.say(OPEN, process_(1))
    for (let i = 0; i < 10; i++) criu.say(ADD_F, process_(1), i * 1001 * PAGE, 1001, PRESENT, bytesOf(1001, i))
    criu.say(CLOSE, 0)
    const { files } = await native.pageServerFinish(handle)
    expect(statSync(join(path, 'pages-1.img')).size).toBe(10_010 * PAGE)
    expect(pagemap(join(path, 'pagemap-1.img')).entries).toEqual([[0, 10_010, PRESENT, 10_010]])
    const written = readFileSync(join(path, 'pages-1.img'))
    expect(files.find(({ name }) => name === 'pages-1.img')?.digest).toBe(native.digestBytes(written))
    for (let i = 0; i < 10; i++)
      expect(written.subarray(i * 1001 * PAGE, (i + 1) * 1001 * PAGE).equals(bytesOf(1001, i)), String(i)).toBe(true)
  })

  it('stores before the last command, though there is memory', async () => {
    const { server: handle, socket } = server(folder(), { memoryBytes: 1 << 28 })
    const criu = new Client(socket)
    criu.say(OPEN, process_(1))
    for (let i = 0; i < 10; i++) criu.say(ADD_F, process_(1), i << 22, 1024, PRESENT, bytesOf(1024, i))
    const written = (): number => native.pageServerProgress(handle).writtenBytes
    await until('something is stored', () => written() > 0)
    criu.say(CLOSE, 0)
    await native.pageServerFinish(handle)
    expect(written()).toBeGreaterThanOrEqual(40 << 20)
  })

  it.each<[string, (criu: Client) => void, object]>([
    ['an unknown command', (criu) => criu.say(99, 0), { code: 'EPROTO', op: 'page server command 99' }],
    ['pages of a parent', (criu) => criu.say(HOLE, process_(1), 0, 1), { code: 'EPROTO', op: 'page server command 2' }],
    ['a question for pages', (criu) => criu.say(GET, process_(1), 0, 1), { code: 'EPROTO', op: 'page server command 7' }],
    [
      'pages without content',
      (criu) => {
        criu.say(OPEN, process_(1))
        criu.say(ADD_F, process_(1), 0, 1, LAZY)
      },
      { code: 'EPROTO', op: 'page server flags 2' },
    ],
    ['pages of nobody', (criu) => criu.say(ADD_F, process_(1), 0, 1, PRESENT, bytesOf(1, 1)), { code: 'EPROTO' }],
    [
      'pages of another',
      (criu) => {
        criu.say(OPEN, process_(1))
        criu.say(ADD_F, process_(2), 0, 1, PRESENT, bytesOf(1, 1))
      },
      { code: 'EPROTO' },
    ],
    ['an unknown kind of memory', (criu) => criu.say(OPEN, 257 * 256 + 9), { code: 'EPROTO' }],
    [
      'the same process twice',
      (criu) => {
        criu.say(OPEN, process_(1))
        criu.say(OPEN, process_(1))
        criu.say(CLOSE, 0)
      },
      { code: 'EEXIST', op: 'create pagemap-1.img' },
    ],
    [
      'an early end',
      (criu) => {
        criu.say(OPEN, process_(1))
        criu.socket.end()
      },
      { code: 'ECONNRESET' },
    ],
    [
      'an end within a page',
      (criu) => {
        criu.say(OPEN, process_(1))
        criu.say(ADD_F, process_(1), 0, 2, PRESENT, bytesOf(1, 1))
        criu.socket.end()
      },
      { code: 'ECONNRESET' },
    ],
  ])('fails at %s, and closes', async (_, talk, failure) => {
    const { server: handle, socket } = server(folder())
    const criu = new Client(socket)
    talk(criu)
    await expect(native.pageServerFinish(handle)).rejects.toMatchObject(failure)
    await criu.closed
  })

  it('ends when told to', async () => {
    const { server: handle, socket } = server(folder())
    const criu = new Client(socket)
    criu.say(OPEN2, process_(1))
    await criu.hear(1)
    const finished = expect(native.pageServerFinish(handle)).rejects.toMatchObject({ code: 'ECANCELED' })
    await native.pageServerAbort(handle)
    await finished
    await criu.closed
    await native.pageServerAbort(handle)
  })

  it('refuses a directory that is none', () => {
    expect(() => server('/dev/null', { directoryFd: -1 })).toThrow(expect.objectContaining({ code: 'EBADF' }))
  })

  it.skipIf(!IS_ROOT)('fails at a full disk, and closes (needs root)', async () => {
    const { server: handle, socket } = server(smallFolder(6))
    const criu = new Client(socket)
    criu.say(OPEN, process_(1))
    for (let i = 0; i < 5; i++) criu.say(ADD_F, process_(1), i << 22, 1024, PRESENT, bytesOf(1024, i))
    await criu.closed
    await expect(native.pageServerFinish(handle)).rejects.toMatchObject({ code: 'ENOSPC', op: 'write pages-1.img' })
  })
})

/** Memory of every kind, checked on SIGUSR1; a child that changed what it inherited. */
const TARGET = `
import hashlib, mmap, os, signal, sys, time
base, mib = sys.argv[1], int(sys.argv[2])
n = mib << 20
P = 4096
def anonymous(flags): return mmap.mmap(-1, n, flags | mmap.MAP_ANONYMOUS)
private = anonymous(mmap.MAP_PRIVATE)
private[:] = os.urandom(n)
for at in range(0, n, 4 * P): private[at:at + 2 * P] = bytes(2 * P)
data = os.urandom(n)
with open(base + '.map', 'wb') as f: f.write(data)
fd = os.open(base + '.map', os.O_RDWR)
copied = mmap.mmap(fd, n, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
for at in range(0, n, 3 * P): copied[at:at + P] = bytes(P)
for at in range(P, n, 6 * P): copied[at:at + 5] = b'hello'
shared = anonymous(mmap.MAP_SHARED)
shared[:n // 2] = os.urandom(n // 2)
shared[n // 2:n // 2 + n // 4] = bytes(n // 4)
memfd = os.memfd_create('pages')
os.truncate(memfd, n)
named = mmap.mmap(memfd, n)
named[n // 4:n // 2] = os.urandom(n // 4)
child = os.fork()
if child == 0:
    for at in range(0, n, 8 * P): private[at + 2 * P:at + 4 * P] = bytes(2 * P)
def state(): return [hashlib.sha256(m).hexdigest() for m in (private, copied, shared, named)]
before = state()
asked = False
def ask(*_):
    global asked
    asked = True
signal.signal(signal.SIGUSR1, ask)
def tell(what):
    path = base + ('.parent' if child else '.child')
    with open(path + '~', 'w') as f: f.write(what)
    os.rename(path + '~', path)
tell('ready')
while True:
    time.sleep(0.01)
    if asked:
        asked = False
        tell('same' if state() == before else 'changed')
        if child: os.kill(child, signal.SIGUSR1)
`

describe.skipIf(!IS_ROOT || CRIU === '')('with CRIU (needs root and CRIU 4.2)', () => {
  const environment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' }

  async function said(path: string, what: string) {
    const now = () => (existsSync(path) ? readFileSync(path, 'utf8') : 'nothing')
    for (let i = 0; i < 1000 && now() !== what; i++) await sleep(20)
    expect(now()).toBe(what)
  }

  async function target(mib: number) {
    const base = join(folder(), 'target')
    const child = spawn('/usr/bin/python3', ['-c', TARGET, base, String(mib)], { stdio: 'ignore', detached: true, env: environment })
    undo.push(() => {
      try {
        process.kill(-(child.pid ?? 0), 'SIGKILL')
      } catch {
        /* gone */
      }
    })
    await Promise.all([said(`${base}.parent`, 'ready'), said(`${base}.child`, 'ready')])
    return { child, base, pid: child.pid ?? 0 }
  }

  /** All of it unchanged, in parent and child. */
  async function verify(base: string, pid: number) {
    process.kill(pid, 'SIGUSR1')
    await Promise.all([said(`${base}.parent`, 'same'), said(`${base}.child`, 'same')])
  }

  async function request(type: string, path: string, options: object, pages?: number, onStopped?: () => void) {
    const { session, peerFd } = native.criuSession()
    const swrk: ChildProcess = spawn(CRIU, ['swrk', '3'], {
      stdio: ['ignore', 'ignore', 'ignore', peerFd, pages ?? 'ignore'],
      env: environment,
    })
    closeSync(peerFd)
    if (pages !== undefined) closeSync(pages)
    const images = openSync(path, 'r')
    try {
      const ps = pages === undefined ? null : { fd: 4, port: 0 }
      return await native.criuRequest(
        session,
        type,
        {
          images_dir_fd: images,
          log_file: `${type}.log`,
          log_level: 4,
          shell_job: true,
          notify_scripts: onStopped !== undefined,
          ps,
          ...options,
        },
        onStopped ? () => Promise.resolve(onStopped()) : null,
        onStopped ? ['query-ext-files'] : null,
      )
    } finally {
      closeSync(images)
      native.criuClose(session)
      if (swrk.exitCode === null && swrk.signalCode === null) await once(swrk, 'exit')
    }
  }

  // With 72 MiB of buffers there is room for some of what can be read ahead.
  it.each([
    [true, 0, 32],
    [false, 0, 32],
    [true, 16, 256],
    [false, 16, 256],
    [true, 2, 72],
  ])(
    'captures memory of every kind, so that it comes back (zero pages left out: %s, read ahead at least: %d MiB, buffers: %d MiB)',
    async (dropZeroPages, aheadMib, bufferMib) => {
      const { child, base, pid } = await target(8)
      const path = join(folder(), 'images')
      mkdirSync(path)
      const { server: handle, socket } = server(path, { dropZeroPages, rootPid: pid, memoryBytes: bufferMib << 20 })
      const onStopped = aheadMib > 0 ? () => native.pageServerReadAhead(handle) : undefined
      const died = once(child, 'exit')
      const below = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim()
      const [response, { files, receivedBytes, zeroBytes, aheadBytes }] = await Promise.all([
        request('DUMP', path, { pid }, socket, onStopped),
        native.pageServerFinish(handle),
      ])
      expect(response.success, readFileSync(join(path, 'DUMP.log'), 'utf8')).toBe(true)
      await died
      expect(aheadBytes).toBeGreaterThanOrEqual(aheadMib << 20)
      if (aheadMib === 0) expect(aheadBytes).toBe(0)
      const stored = files.filter(({ name }) => name.startsWith('pages-')).reduce((sum, { size }) => sum + size, 0)
      expect(stored + zeroBytes).toBe(receivedBytes)
      if (dropZeroPages)
        expect(zeroBytes).toBeGreaterThan(8 << 20) // half of the parent's, three quarters of the child's 8 MiB
      else expect(zeroBytes).toBe(0)
      // Init reaps the child in its own time; until then its PID, session and group are taken.
      for (let i = 0; i < 500 && existsSync(`/proc/${below}`); i++) await sleep(20)
      const restored = await request('RESTORE', path, {})
      expect(restored, readFileSync(join(path, 'RESTORE.log'), 'utf8')).toMatchObject({ success: true, pid })
      await verify(base, pid)
    },
    60_000,
  )

  it('drops nothing when it cannot tell whose memory it is', async () => {
    const { pid, base } = await target(1)
    const stranger = await target(1)
    const path = folder()
    const { server: handle, socket } = server(path, { dropZeroPages: true, rootPid: stranger.pid })
    const [response, { zeroBytes }] = await Promise.all([
      request('DUMP', path, { pid, leave_running: true }, socket),
      native.pageServerFinish(handle),
    ])
    expect([response.success, zeroBytes]).toEqual([true, 0])
    await verify(base, pid)
  }, 60_000)

  it('reads nothing ahead of what nobody has stopped', async () => {
    const { pid, base } = await target(8)
    const stranger = await target(8)
    const { server: handle, socket } = server(folder(), { rootPid: stranger.pid, memoryBytes: 256 << 20 })
    const [response, { aheadBytes }] = await Promise.all([
      request('DUMP', folder(), { pid, leave_running: true }, socket, () => native.pageServerReadAhead(handle)),
      native.pageServerFinish(handle),
    ])
    expect([response.success, aheadBytes]).toEqual([true, 0])
    await verify(base, pid)
  }, 60_000)

  it('lets the target run on when the disk is full', async () => {
    const { pid, base } = await target(8)
    const images = folder()
    const { server: handle, socket } = server(smallFolder(6))
    const finished = expect(native.pageServerFinish(handle)).rejects.toMatchObject({ code: 'ENOSPC' })
    const response = await request('DUMP', images, { pid }, socket).catch((error: unknown) => error)
    expect(response).not.toMatchObject({ success: true })
    await finished
    await verify(base, pid)
  }, 60_000)
})

it('leaves an existing image alone', async () => {
  const path = folder()
  writeFileSync(join(path, 'pages-1.img'), 'old')
  const { server: handle, socket } = server(path)
  const criu = new Client(socket)
  criu.say(OPEN, process_(1))
  await expect(native.pageServerFinish(handle)).rejects.toMatchObject({ code: 'EEXIST', op: 'create pages-1.img' })
  expect(readFileSync(join(path, 'pages-1.img'), 'utf8')).toBe('old')
})

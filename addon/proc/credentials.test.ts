import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  mkdtempSync,
  chownSync,
  chmodSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { once } from 'node:events'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { native } from '../index.js'

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_RDONLY, O_RDWR, O_WRONLY } = constants
const AT_FDCWD = -100
const NOBODY = 65534
const GROUP = 54321

const dir = mkdtempSync(join(tmpdir(), 'cedana-credentials-'))
afterAll(() => rmSync(dir, { recursive: true }))

describe.skipIf(process.getuid?.() !== 0)('as another user (needs root)', () => {
  const open = (path: string, flags: number, groups: number[] = []) => native.openAs(NOBODY, NOBODY, groups, AT_FDCWD, path, flags, 0o640)
  const status = () => readFileSync(`/proc/self/task/${process.pid}/status`, 'utf8').match(/^(Uid|Gid|Groups|CapEff):.*$/gm)

  beforeAll(() => {
    chmodSync(dir, 0o755)
    writeFileSync(join(dir, 'private'), 'secret', { mode: 0o600 })
    writeFileSync(join(dir, 'public'), 'text', { mode: 0o644 })
    for (const [name, mode] of [
      ['locked', 0o700],
      ['shared', 0o770],
      ['open', 0o777],
    ] as const) {
      mkdirSync(join(dir, name))
      chmodSync(join(dir, name), mode)
    }
    chownSync(join(dir, 'shared'), 0, GROUP)
    writeFileSync(join(dir, 'locked', 'inside'), '', { mode: 0o666 })
  })

  it('opens what that user may open, and nothing else', async () => {
    const before = status()
    const fd = await open(join(dir, 'public'), O_RDONLY)
    expect(readFileSync(fd, 'utf8')).toBe('text')
    expect(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')).toMatch(/flags:\t02\d{6}/) // O_CLOEXEC
    closeSync(fd)
    for (const [name, flags] of [
      ['private', O_RDONLY],
      ['public', O_RDWR],
      ['locked/inside', O_RDONLY],
      ['new', O_WRONLY | O_CREAT],
    ] as const) {
      await expect(open(join(dir, name), flags)).rejects.toMatchObject({ code: 'EACCES', op: `open ${join(dir, name)}` })
    }
    // Other threads, this one too, kept their ids and capabilities.
    expect(status()).toEqual(before)
    expect(readFileSync(join(dir, 'private'), 'utf8')).toBe('secret')
  })

  it('creates files and directories that belong to that user', async () => {
    const path = join(dir, 'open', 'made')
    const fd = await open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW)
    expect(fstatSync(fd)).toMatchObject({ uid: NOBODY, gid: NOBODY })
    closeSync(fd)
    await expect(open(path, O_RDWR | O_CREAT | O_EXCL)).rejects.toMatchObject({ code: 'EEXIST' })

    const parent = openSync(join(dir, 'open'), O_RDONLY)
    const made = await native.mkdirAs(NOBODY, NOBODY, [], parent, 'directory/', 0o700)
    expect(fstatSync(made)).toMatchObject({ uid: NOBODY, gid: NOBODY })
    expect(fstatSync(made).isDirectory()).toBe(true)
    expect(fstatSync(made).mode & 0o7777).toBe(0o700)
    const inside = await native.openAs(NOBODY, NOBODY, [], made, 'file', O_WRONLY | O_CREAT, 0o600)
    for (const opened of [inside, made, parent]) closeSync(opened)
    await expect(native.mkdirAs(NOBODY, NOBODY, [], AT_FDCWD, join(dir, 'open', 'directory'), 0o700)).rejects.toMatchObject({
      code: 'EEXIST',
    })
    await expect(native.mkdirAs(NOBODY, NOBODY, [], AT_FDCWD, join(dir, 'no'), 0o700)).rejects.toMatchObject({ code: 'EACCES' })
  })

  it('counts the groups', async () => {
    await expect(open(join(dir, 'shared', 'a'), O_WRONLY | O_CREAT)).rejects.toMatchObject({ code: 'EACCES' })
    closeSync(await open(join(dir, 'shared', 'a'), O_WRONLY | O_CREAT, [GROUP]))
  })

  it('follows no link into the files of the daemon', async () => {
    const fd = openSync(join(dir, 'private'), O_RDONLY)
    await expect(open(`/proc/self/fd/${fd}`, O_RDONLY)).rejects.toMatchObject({ code: 'ELOOP' })
    symlinkSync(`/proc/self/fd/${fd}`, join(dir, 'open', 'link'))
    await expect(open(join(dir, 'open', 'link'), O_RDONLY)).rejects.toMatchObject({ code: 'ELOOP' })
    await expect(open(join(dir, 'open', 'link'), O_RDONLY | O_NOFOLLOW)).rejects.toMatchObject({ code: 'ELOOP' })
    closeSync(fd)
  })

  it('answers questions of access', async () => {
    const may = (name: string, mode: number, groups: number[] = []) => native.accessAs(NOBODY, NOBODY, groups, join(dir, name), mode)
    expect(await may('public', 4)).toBe(true)
    expect(await may('public', 2)).toBe(false)
    expect(await may('private', 4)).toBe(false)
    expect(await may('locked/inside', 4)).toBe(false)
    expect(await may('absent', 4)).toBe(false)
    expect(await may('shared', 3)).toBe(false)
    expect(await may('shared', 3, [GROUP])).toBe(true)
    expect(await native.accessAs(0, 0, [], join(dir, 'private'), 6)).toBe(true)
  })
})

it('acts directly for its own user', async () => {
  const uid = process.getuid?.() ?? 0
  const fd = await native.openAs(uid, process.getgid?.() ?? 0, [], AT_FDCWD, join(dir, 'own'), O_RDWR | O_CREAT, 0o600)
  expect(fstatSync(fd).uid).toBe(uid)
  closeSync(fd)
})

it('tells who is at the other end of a socket', async () => {
  const server = net.createServer().listen(join(dir, 'socket'))
  const client = net.connect(join(dir, 'socket'))
  const [accepted] = (await once(server, 'connection')) as [net.Socket & { _handle: { fd: number } }]
  // process.getgroups() adds the effective group.
  const groups = (/^Groups:(.*)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '')
    .trim()
    .split(/\s+/)
    .filter(Boolean)
    .map(Number)
  expect(native.peerCredentials(accepted._handle.fd)).toEqual({
    pid: process.pid,
    uid: process.getuid?.(),
    gid: process.getgid?.(),
    groups,
  })
  client.destroy()
  accepted.destroy()
  server.close()
  expect(() => native.peerCredentials(-1)).toThrow(expect.objectContaining({ op: 'SO_PEERCRED', code: 'EBADF' }))
})

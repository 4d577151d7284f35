import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type NativeFile, type NativeSnapshot, native } from '../index.js'

/** A process with one of each kind of open file, which prints the numbers of what it opened. */
const WORLD = `
const fs = require('fs'), net = require('net'), dgram = require('dgram'), { spawn } = require('child_process')
const dir = process.argv[1]
const listen = (server, ...at) => new Promise((done) => server.listen(...at, () => done(server)))
const fd = (holder) => holder._handle.fd
;(async () => {
  const regular = fs.openSync(dir + '/regular', 'a+')
  const deleted = fs.openSync(dir + '/deleted file', 'w')
  fs.unlinkSync(dir + '/deleted file')
  const tty = fs.openSync('/dev/ptmx', 'r+')
  const tcp = await listen(net.createServer(() => {}), 0, '127.0.0.1')
  const tcp6 = await listen(net.createServer(() => {}), 0, '::1')
  const unix = await listen(net.createServer(() => {}), dir + '/a socket')
  const abstract = await listen(net.createServer(() => {}), '\\0cedana test ' + process.pid)
  const udp = dgram.createSocket('udp4')
  await new Promise((done) => udp.bind(0, '127.0.0.1', done))
  const client = net.connect(tcp.address().port, '127.0.0.1')
  await new Promise((done) => client.on('connect', done))
  const child = spawn('sleep', ['100'], { stdio: 'ignore', detached: true })
  process.chdir(dir)
  console.log(JSON.stringify({
    regular, deleted, tty, child: child.pid, tcpPort: tcp.address().port, tcp6Port: tcp6.address().port,
    udpPort: udp.address().port, clientPort: client.localPort,
    tcp: fd(tcp), tcp6: fd(tcp6), unix: fd(unix), abstract: fd(abstract), udp: fd(udp), client: fd(client),
  }))
})()
`

/** process.getgroups() adds the effective group. */
const groups = () =>
  (/^Groups:(.*)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '').trim().split(/\s+/).filter(Boolean).map(Number)

describe('scanTree', () => {
  const dir = mkdtempSync(join(tmpdir(), 'cedana scan-'))
  let child: ChildProcessByStdio<null, Readable, null>
  let world: Record<string, number>
  let snapshot: NativeSnapshot
  const file = (name: string) => snapshot.processes[0]?.files.find((f) => f.fd === world[name]) as NativeFile
  const socket = (name: string) => snapshot.sockets.find((s) => s.fd === world[name] && s.pid === child.pid)

  beforeAll(async () => {
    writeFileSync(join(dir, 'regular'), 'twelve bytes')
    child = spawn(process.execPath, ['-e', WORLD, dir], { stdio: ['ignore', 'pipe', 'inherit'] })
    const [line] = (await once(child.stdout, 'data')) as [Buffer]
    world = JSON.parse(line.toString()) as Record<string, number>
    snapshot = await native.scanTree(child.pid ?? 0)
  })
  afterAll(() => {
    process.kill(world['child'] ?? 0, 'SIGKILL')
    child.kill('SIGKILL')
    rmSync(dir, { recursive: true })
  })

  it('lists the tree, root first', () => {
    expect(snapshot.processes.map((p) => p.pid)).toEqual([child.pid, world['child']])
    const sleep = snapshot.processes[1]
    expect(sleep).toMatchObject({ parentPid: child.pid, name: 'sleep', args: ['sleep', '100'], session: world['child'] })
    expect(sleep?.files.slice(0, 3).map((f) => [f.fd, f.path, f.type, f.isTty])).toEqual(
      [0, 1, 2].map((fd) => [fd, '/dev/null', 'character', false]),
    )
  })

  it('tells what a process is', () => {
    const root = snapshot.processes[0]
    const stat = readFileSync(`/proc/${child.pid}/stat`, 'utf8')
    expect(root).toMatchObject({
      parentPid: process.pid,
      startTicks: stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19],
      args: [process.execPath, '-e', WORLD, dir],
      executable: readlinkSync('/proc/self/exe'),
      workingDirectory: dir,
      rootDirectory: '/',
      uids: Array(4).fill(process.getuid?.()),
      gids: Array(4).fill(process.getgid?.()),
      groups: groups(),
      tracer: 0,
    })
    expect(root?.threads.length).toBeGreaterThan(1)
    expect(root?.threads).toContain(child.pid)
    expect(root?.state).toMatch(/^[RSD]$/)
    expect(root?.residentBytes).toBeGreaterThan(10 * 2 ** 20)
    expect(root?.dumpBytes).toBeGreaterThan(2 ** 20)
    expect(root?.dumpBytes).toBeLessThan(root?.residentBytes ?? 0)
    for (const [name, inode] of Object.entries(root?.namespaces ?? {})) {
      expect(`${name}:[${inode}]`).toBe(readlinkSync(`/proc/${child.pid}/ns/${name}`))
    }
    expect(root?.cgroups).toEqual(readFileSync(`/proc/${child.pid}/cgroup`, 'utf8').trim().split('\n'))
  })

  it('tells what its files are', () => {
    const stat = statSync(join(dir, 'regular'))
    expect(file('regular')).toMatchObject({
      path: join(dir, 'regular'),
      type: 'regular',
      inode: String(stat.ino),
      device: stat.dev,
      isDeleted: false,
      isTty: false,
      position: 0,
    })
    expect((file('regular').flags & 0o2003) === 0o2002).toBe(true) // O_APPEND | O_RDWR
    expect(file('deleted')).toMatchObject({ path: join(dir, 'deleted file (deleted)'), type: 'regular', isDeleted: true })
    expect(file('tty')).toMatchObject({ type: 'character', isTty: true, deviceId: statSync('/dev/ptmx').rdev })
    expect(file('tcp')).toMatchObject({ type: 'socket', isDeleted: false })
    expect(snapshot.processes[0]?.files.find((f) => f.path === 'anon_inode:[eventpoll]')?.type).toBe('anonymous')
    expect(snapshot.processes[0]?.files.find((f) => f.fd === 1)?.type).toMatch(/fifo|socket/)
  })

  it('tells what its sockets are', () => {
    expect(socket('tcp')).toMatchObject({
      family: 'inet',
      kind: 'stream',
      state: 'LISTEN',
      local: `127.0.0.1:${world['tcpPort']}`,
      remote: '0.0.0.0:0',
    })
    expect(socket('tcp6')).toMatchObject({ family: 'inet6', kind: 'stream', state: 'LISTEN', local: `[::1]:${world['tcp6Port']}` })
    expect(socket('client')).toMatchObject({
      state: 'ESTABLISHED',
      local: `127.0.0.1:${world['clientPort']}`,
      remote: `127.0.0.1:${world['tcpPort']}`,
    })
    expect(socket('udp')).toMatchObject({ family: 'inet', kind: 'datagram', local: `127.0.0.1:${world['udpPort']}` })
    expect(socket('unix')).toMatchObject({ family: 'unix', kind: 'stream', state: 'LISTEN', local: join(dir, 'a socket') })
    // Node pads abstract names with zero bytes, which the kernel prints as @.
    expect(socket('abstract')).toMatchObject({ family: 'unix', state: 'LISTEN' })
    expect(socket('abstract')?.local.replace(/@+$/, '')).toBe(`@cedana test ${child.pid}`)
    // Its output goes through a pair of sockets whose other end is here.
    expect(snapshot.sockets.find((s) => s.fd === 1)).toMatchObject({ family: 'unix', state: 'CONNECTED', peerPid: process.pid })
    // Both ends of the connection belong to the process.
    expect(snapshot.sockets.filter((s) => s.state === 'ESTABLISHED')).toHaveLength(2)
  })

  it('tells its mounts', async () => {
    // Others may mount something meanwhile.
    let lines: string[] = []
    const seen = async () => {
      lines = readFileSync(`/proc/${child.pid}/mountinfo`, 'utf8').trim().split('\n')
      snapshot = await native.scanTree(child.pid ?? 0)
      return snapshot.mounts.length - lines.length
    }
    await expect.poll(seen).toBe(0)
    const root = lines.map((line) => line.split(' ')).findLast((fields) => fields[4] === '/')
    expect(snapshot.mounts).toContainEqual(
      expect.objectContaining({ id: Number(root?.[0]), path: '/', root: root?.[3], options: root?.[5] }),
    )
  })
})

it('rejects for a process that is gone', async () => {
  await expect(native.scanTree(2 ** 22 + 1)).rejects.toMatchObject({ code: 'ESRCH' })
})

it('shows a zombie as one', async () => {
  const parent = spawn('sh', ['-c', 'sleep 0.05 & echo $!; exec sleep 100'], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = (await once(parent.stdout, 'data')) as [Buffer]
  const pid = Number(line.toString())
  await native.pidfdWait(native.pidfdOpen(pid))
  const { processes } = await native.scanTree(parent.pid ?? 0)
  parent.kill('SIGKILL')
  expect(processes[1]).toMatchObject({ pid, state: 'Z', files: [], args: [] })
})

it('tells at once what one process is', async () => {
  const [row] = await native.scanProcesses([process.pid])
  expect(native.scanProcess(process.pid)).toEqual({
    ...row,
    state: expect.any(String) as string,
    uids: Array(4).fill(process.getuid?.()),
    gids: Array(4).fill(process.getgid?.()),
    groups: groups(),
    workingDirectory: process.cwd(),
  })
  expect(native.scanProcess(2 ** 22 + 1)).toBeNull()
})

describe('scanProcesses', () => {
  it('gives rows of those that exist', async () => {
    const rows = await native.scanProcesses([process.pid, 2 ** 22 + 1])
    expect(rows).toHaveLength(1)
    expect(rows[0]).toMatchObject({ pid: process.pid, parentPid: process.ppid, uid: process.getuid?.(), gid: process.getgid?.() })
  })
})

it('tells a little of all processes', async () => {
  const rows = await native.scanStats()
  expect(rows.map((row) => row.pid)).toEqual(expect.arrayContaining([1, process.pid]))
  const { args: _args, uid: _uid, gid: _gid, ...stat } = (await native.scanProcesses([process.pid]))[0]!
  expect(rows.find(({ pid }) => pid === process.pid)).toEqual({ ...stat, state: expect.any(String) as string })
})

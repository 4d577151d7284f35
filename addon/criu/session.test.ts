import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, it } from 'vitest'
import { type CriuNotify, type CriuSessionHandle, native, NativeError } from '../index.js'

const CRIU = ['/opt/cedana/criu/bin/criu', '/usr/sbin/criu'].find((path) => existsSync(path)) ?? ''

describe('the options', () => {
  const { session, peerFd } = native.criuSession()
  const check = (options: object) => native.criuRequest(session, 'DUMP', options, null, null)

  it('are described by CRIU itself', () => {
    const fields = new Map(native.criuOptions().map((field) => [field.name, field]))
    expect(fields.get('images_dir_fd')).toEqual({ name: 'images_dir_fd', type: 'int32', repeated: false, fields: null, values: null })
    expect(fields.get('external')).toMatchObject({ type: 'string', repeated: true })
    expect(fields.get('manage_cgroups_mode')).toMatchObject({ type: 'enum', values: expect.arrayContaining(['SOFT', 'STRICT']) as unknown })
    expect(fields.get('inherit_fd')?.fields?.map((field) => `${field.name}: ${field.type}`)).toEqual(['key: string', 'fd: int32'])
  })

  it.each([
    [{ no_such: 1 }, 'opts.no_such: no such field'],
    [{ pid: 'x' }, 'opts.pid: not an integer of 32 bits'],
    [{ pid: 1.5 }, 'opts.pid: not an integer of 32 bits'],
    [{ pid: 2 ** 31 }, 'opts.pid: not an integer of 32 bits'],
    [{ cpu_cap: -1 }, 'opts.cpu_cap: not an integer of 32 bits'],
    [{ leave_running: 1 }, 'opts.leave_running: not a boolean'],
    [{ root: ['a'] }, 'opts.root: not a string'],
    [{ root: 'a\0b' }, 'opts.root: has a zero byte'],
    [{ external: 'a' }, 'opts.external: not an array'],
    [{ external: ['a', 1] }, 'opts.external[1]: not a string'],
    [{ ps: [] }, 'opts.ps: not an object'],
    [{ ext_mnt: [{ key: 'a', val: 'b' }, { foo: 1 }, {}] }, 'opts.ext_mnt[1].foo: no such field'],
    [{ ext_mnt: [{ key: 'a' }] }, 'opts.ext_mnt[0].val: is required'],
    [{ manage_cgroups_mode: 'SOMETIMES' }, 'opts.manage_cgroups_mode: not a criu_cg_mode'],
    [{ manage_cgroups_mode: 99 }, 'opts.manage_cgroups_mode: not a criu_cg_mode'],
  ])('are refused: %j', async (options, op) => {
    const failure = await check(options).catch((thrown: unknown) => thrown)
    expect(failure).toBeInstanceOf(NativeError)
    expect(failure).toMatchObject({ op, code: 'EINVAL' })
  })

  it('refuse an unknown request', async () => {
    await expect(native.criuRequest(session, 'EXPLODE', null, null, null)).rejects.toMatchObject({
      code: 'EINVAL',
      op: 'request type EXPLODE',
    })
  })

  it('reject when the other end is closed, and the session when it is', async () => {
    closeSync(peerFd)
    await expect(
      check({
        pid: '12',
        external: ['a'],
        ext_mnt: [{ key: 'a', val: 'b' }],
        manage_cgroups_mode: 'SOFT',
        cpu_cap: 4294967295,
        root: null,
      }),
    ).rejects.toMatchObject({ code: 'ECONNRESET' })
    native.criuClose(session)
    native.criuClose(session)
    await expect(check({})).rejects.toMatchObject({ code: 'EBADF' })
  })
})

describe.skipIf(CRIU === '' || process.getuid?.() !== 0)('a conversation (needs root and CRIU 4.2)', () => {
  const children: ChildProcess[] = []
  const sessions: CriuSessionHandle[] = []
  const restored: number[] = []
  const folders: string[] = []

  afterEach(async () => {
    for (const session of sessions.splice(0)) native.criuClose(session)
    for (const pid of restored.splice(0)) process.kill(pid, 'SIGKILL')
    for (const child of children.splice(0)) {
      child.kill('SIGKILL')
      await ended(child)
    }
    for (const folder of folders.splice(0)) rmSync(folder, { recursive: true })
  })

  async function ended(child: ChildProcess) {
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  }

  function start(command: string, args: string[], stdio: ('ignore' | number)[] = ['ignore', 'ignore', 'ignore']) {
    // An environment of its own: the libraries that a sanitizer run preloads are not for CRIU.
    const child = spawn(command, args, { stdio, detached: true, env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' } })
    children.push(child)
    return child
  }

  /** A CRIU that listens, and our end. */
  function swrk() {
    const { session, peerFd } = native.criuSession()
    const child = start(CRIU, ['swrk', '3'], ['ignore', 'ignore', 'ignore', peerFd])
    closeSync(peerFd)
    sessions.push(session)
    const request = (type: string, options: object | null, notify: CriuNotify | null, scripts: string[] | null = null) =>
      native.criuRequest(session, type, options, notify, scripts)
    return { child, request, close: () => native.criuClose(session) }
  }

  /** A target and options to dump it. */
  function target() {
    const folder = mkdtempSync(join(tmpdir(), 'cedana-criu-'))
    folders.push(folder)
    const child = start('sleep', ['1000'])
    const pid = child.pid ?? 0
    const options = {
      images_dir_fd: openSync(folder, 'r'),
      pid,
      log_level: 4,
      log_file: 'criu.log',
      leave_running: true,
      notify_scripts: true,
    }
    return { child, pid, options, log: () => readFileSync(join(folder, 'criu.log'), 'utf8'), done: () => closeSync(options.images_dir_fd) }
  }

  const state = (pid: number) => /^State:\s(.)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]

  async function settled(pid: number) {
    for (let i = 0; i < 1000 && state(pid) !== 'S'; i++) await sleep(10)
    return state(pid)
  }

  it('asks for the version', async () => {
    const { request } = swrk()
    const response = await request('VERSION', null, null)
    expect(response).toMatchObject({ success: true, errno: 0, pid: null })
    expect(response.version?.[0]).toBeGreaterThanOrEqual(4)
    expect(response.version).toHaveLength(3)
  })

  it('dumps and restores, with notifications that are awaited', async () => {
    const { child, pid, options, log, done } = target()
    expect(await settled(pid)).toBe('S')
    const scripts: [string, string | undefined][] = []
    const notify: CriuNotify = async (script) => {
      await sleep(20)
      scripts.push([script, state(pid)])
    }
    expect(await swrk().request('DUMP', { ...options, leave_running: false }, notify), log()).toMatchObject({ success: true, errno: 0 })
    expect(scripts.map(([script]) => script)).toEqual(['pre-dump', 'query-ext-files', 'post-dump'])
    expect(scripts[0]?.[1]).toBe('S')
    expect(scripts[2]?.[1]).toMatch(/^[tT]$/)
    await ended(child)

    const pids: (number | null)[] = []
    const restore = swrk()
    const response = await restore.request(
      'RESTORE',
      { ...options, leave_running: null, pid: null, rst_sibling: true, log_file: 'restore.log' },
      (script, pid) => (pids.push(script === 'post-restore' ? pid : null), Promise.resolve()),
    )
    expect(response).toMatchObject({ success: true, pid })
    restored.push(pid)
    expect(pids.filter((one) => one !== null)).toEqual([pid])
    expect(await settled(pid)).toBe('S')
    // It is our child now.
    expect((await native.scanProcesses([pid]))[0]).toMatchObject({ parentPid: process.pid, name: 'sleep' })
    done()
  })

  it('rolls back when a notification is refused', async () => {
    const { pid, options, done } = target()
    const scripts: string[] = []
    const response = await swrk().request('DUMP', { ...options, leave_running: false }, async (script) => {
      scripts.push(script)
      await sleep(1)
      if (script === 'post-dump') throw new Error('no')
    })
    expect(response.success).toBe(false)
    expect(scripts.at(-1)).toBe('post-dump')
    expect(await settled(pid)).toBe('S')
    done()
  })

  it('tells only what was asked for', async () => {
    const { options, done } = target()
    const told: string[] = []
    const notify: CriuNotify = (script) => (told.push(script), Promise.resolve())
    expect((await swrk().request('DUMP', options, notify, ['post-dump'])).success).toBe(true)
    expect(told).toEqual(['post-dump'])
    done()
  })

  it('takes a callback that throws at once for a refusal', async () => {
    const { pid, options, done } = target()
    const response = await swrk().request('DUMP', options, () => {
      throw new Error('no')
    })
    expect(response.success).toBe(false)
    expect(await settled(pid)).toBe('S')
    done()
  })

  it('gives the reason of a failure', async () => {
    const { options, done } = target()
    const response = await swrk().request('DUMP', { ...options, pid: 2 ** 22 - 1 }, null)
    expect(response).toMatchObject({ success: false, errno: expect.any(Number) as unknown })
    expect(response.errno).not.toBe(0)
    done()
  })

  it('rejects when CRIU dies, and the target goes on', async () => {
    const { pid, options, done } = target()
    const criu = swrk()
    const dump = criu.request('DUMP', options, async (script) => {
      if (script !== 'post-dump') return
      criu.child.kill('SIGKILL')
      await ended(criu.child)
    })
    await expect(dump).rejects.toMatchObject({ code: 'ECONNRESET', op: 'criuRequest' })
    expect(await settled(pid)).toBe('S')
    done()
  })

  it('ends at once when it is closed, also within a notification', async () => {
    const { pid, options, done } = target()
    const criu = swrk()
    const dump = criu.request('DUMP', options, (script) => {
      if (script !== 'query-ext-files') return Promise.resolve()
      criu.close()
      return new Promise(() => {})
    })
    await expect(dump).rejects.toMatchObject({ code: 'ECONNRESET' })
    await ended(criu.child)
    expect(await settled(pid)).toBe('S')
    done()
  })

  it('takes one request at a time', async () => {
    const { options, done } = target()
    const criu = swrk()
    const second: unknown[] = []
    const dump = criu.request('DUMP', options, async (script) => {
      if (script === 'pre-dump') second.push(await criu.request('VERSION', null, null).catch((thrown: unknown) => thrown))
    })
    expect((await dump).success).toBe(true)
    expect(second).toEqual([expect.objectContaining({ code: 'EBUSY' })])
    done()
  })
})

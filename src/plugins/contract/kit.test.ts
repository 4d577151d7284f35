import { describe, expect, it } from 'vitest'
import type { ExecResult, Host } from './host.js'
import {
  asCaller,
  delegated,
  exitOf,
  inspectContainer,
  launchedBy,
  listing,
  liveInit,
  orUndefined,
  patient,
  quoted,
  restoredBy,
  stable,
  standIn,
  tell,
  waitFor,
  withoutLinks,
} from './kit.js'
import { CedanaError } from './errors.js'

/** A machine on which every program ends like this. */
const ending = (result: Partial<ExecResult>, asked: unknown[] = []): Host =>
  ({
    exec: async (argv: readonly string[]) => {
      asked.push(argv)
      return { code: 0, stdout: '', stderr: '', ...result }
    },
    identify: async (pid: number) => ({ pid, startTicks: '1', bootId: 'boot' }),
    delegate: async (...args: readonly unknown[]) => void asked.push(args),
    signal: AbortSignal.abort(),
  }) as unknown as Host

const context = {
  caller: { uid: 1, gid: 2, groups: [3], pid: 4 },
  environment: { A: 'b' },
  workingDirectory: '/work',
  directory: '/jobs/web',
} as never

describe('tell', () => {
  it('answers what the program prints', async () => {
    expect(await tell(ending({ stdout: 'out\n' }), ['program'])).toBe('out\n')
  })

  it.each([
    ['first\nError: no room\n', 'program failed: no room'],
    ['time="now" level=error msg="no room"\n', 'program failed: no room'],
    ['', 'program failed: it ended with 3'],
  ])('says why it failed: %j', async (stderr, message) => {
    await expect(tell(ending({ code: 3, stderr }), ['program'])).rejects.toMatchObject({ code: 'HOST_UNFIT', message })
  })

  it('knows what is missing by what is said', async () => {
    const missing = { pattern: /no such thing/, hint: 'look for it' }
    const error = { code: 'NO_SUCH_CONTAINER', message: 'no such thing: web', hint: 'look for it' }
    const host = ending({ code: 1, stderr: 'Error: no such thing: web' })
    await expect(tell(host, ['program'], { missing })).rejects.toMatchObject(error)
    const code = 'NO_SUCH_PROCESS'
    await expect(tell(host, ['program'], { missing: { ...missing, code } })).rejects.toMatchObject({ code })
  })
})

describe('containers', () => {
  const shown = (Status: string, Pid: number): Partial<ExecResult> => ({ stdout: JSON.stringify([{ Id: 'abc', State: { Pid, Status } }]) })

  it('are inspected by name, with the flags of the program', async () => {
    const asked: unknown[] = []
    const host = ending(shown('paused', 7), asked)
    const container = await inspectContainer(host, ['podman', '--root=/r'], 'web')
    expect(asked).toEqual([['podman', '--root=/r', 'container', 'inspect', 'web']])
    expect(await liveInit(host, container)).toMatchObject({ pid: 7 })
  })

  it('are missing when they have ended, or never were', async () => {
    const host = ending(shown('exited', 0))
    await expect(liveInit(host, await inspectContainer(host, ['podman'], 'web'))).rejects.toMatchObject({ code: 'NO_SUCH_CONTAINER' })
    const absent = ending({ code: 125, stderr: 'Error: no such container web' })
    await expect(inspectContainer(absent, ['podman'], 'web')).rejects.toMatchObject({ code: 'NO_SUCH_CONTAINER' })
  })
})

describe('waitFor', () => {
  it('looks, waits for what wakes it, and looks again', async () => {
    const order: string[] = []
    const wakeups = {
      directory: (path: string) => void order.push(path),
      next: async () => void order.push('woken'),
      [Symbol.dispose]: () => void order.push('closed'),
    }
    const host = { wakeups: () => wakeups } as unknown as Host
    let looks = 0
    expect(await waitFor(host, ['/a', '/b'], async () => (++looks === 3 ? 'found' : undefined))).toBe('found')
    expect(order).toEqual(['/a', '/b', 'woken', 'woken', 'closed'])
  })

  it('is not kept by what it is told to expect', async () => {
    const fail = async (): Promise<never> => {
      throw new CedanaError('NO_SUCH_CONTAINER', 'none')
    }
    expect(await orUndefined(['NO_SUCH_CONTAINER'], fail)).toBeUndefined()
    await expect(orUndefined(['NO_SUCH_PROCESS'], fail)).rejects.toMatchObject({ code: 'NO_SUCH_CONTAINER' })
  })
})

describe('plans', () => {
  it('are of the caller', () => {
    const user = { uid: 1, gid: 2, groups: [3] }
    const plan = { argv: ['a'], environment: { A: 'b' }, workingDirectory: '/work', user, problems: [] }
    expect(asCaller(context, ['a'])).toEqual(plan)
    const launcher = { pidFile: '/jobs/web/pid', log: '/jobs/web/launcher.log', foreign: true }
    expect(launchedBy(context, { x: 1 })).toEqual({ launch: { x: 1 }, launcher })
    expect(restoredBy(context, { argv: ['a'], request: { x: 1 }, identity: { id: 'web' } })).toMatchObject({
      criu: {},
      program: { user, launcher, identity: { id: 'web' } },
    })
  })

  it('are another runtime’s, by the name that the target has there', async () => {
    const asked: unknown[] = []
    const { dump, kill } = delegated('runc', async (_host, { name }) => ({ id: name }))
    await dump(ending({}, asked), { stdio: 'log', identity: { name: 'web' } } as never)
    await kill(ending({}, asked), 'target' as never, 9, { name: 'web' })
    expect(asked).toEqual([
      ['runc', 'dump', { stdio: 'log', identity: { id: 'web' } }, {}],
      ['runc', 'kill', 'target', 9, { id: 'web' }],
    ])
  })
})

it('a stand-in has its environment, whatever is in it', () => {
  expect(quoted("it's")).toBe(`'it'\\''s'`)
  expect(standIn('/bin/x', { A: '$b c' })).toBe(`#!/bin/sh\nexport A='$b c'\nexec '/bin/x' "$@"\n`)
})

it('what is taken back is when whoever asked has gone, too', () => {
  expect(patient(ending({})).signal.aborted).toBe(false)
})

it('claims, exit statuses and lists are what they are called', () => {
  expect(stable('run', 'dump')).toEqual({ run: 'stable', dump: 'stable' })
  expect([exitOf(0), exitOf(7), exitOf(137), exitOf(255)]).toEqual([{ code: 0 }, { code: 7 }, { signal: 9 }, { code: 255 }])
  expect(listing([{ Name: 'web', Pid: 3 }], { NAME: 'Name' })).toEqual({
    columns: ['NAME'],
    rows: [{ cells: { NAME: 'web' }, state: { Name: 'web', Pid: 3 } }],
    messages: [],
  })
})

describe('bind mounts', () => {
  const mounts = [
    { type: 'proc', source: 'proc' },
    { type: 'bind', source: '/link' },
    { type: 'none', source: 'data', options: ['rbind'] },
  ]

  it('are by what their sources lead to', async () => {
    const asked: unknown[] = []
    const host = ending({ stdout: '/target\0/bundle/data\0' }, asked)
    expect(await withoutLinks(host, mounts, '/bundle')).toEqual([
      mounts[0],
      { type: 'bind', source: '/target' },
      { ...mounts[2], source: '/bundle/data' },
    ])
    expect(asked).toEqual([['realpath', '--canonicalize-missing', '--zero', '--', '/link', '/bundle/data']])
  })

  it('are the same where none is a link', async () => {
    expect(await withoutLinks(ending({ stdout: '/link\0/bundle/data\0' }), mounts, '/bundle')).toBe(mounts)
    const plain = mounts.slice(0, 1)
    expect(await withoutLinks(ending({ code: 1 }), plain, '/bundle')).toBe(plain)
  })
})

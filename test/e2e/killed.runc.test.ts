/**
 * SIGKILL for whoever is at work while a container is made or restored: shim, runtime, daemon, command, alone and together. Whatever is left then is either
 * a job or nothing: no state directory, cgroup, mount or process; and the same command works afterwards.
 */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { useContainers } from '../support/containers.js'
import type { Conversation } from '../support/conversation.js'
import { isAlive, processInfo } from '../support/processes.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const world = useWorld()
const containers = useContainers(world)
const COUNT = ['sh', '-c', 'i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done']
const CGROUPS = '/sys/fs/cgroup'

type Moment = 'prestart' | 'poststart'
type Victim = 'daemon' | 'shim' | 'runtime'

/** A container whose hook waits for as long as it is told to; outside, a directory is bound into it. */
function held(word: string, moment: Moment) {
  const [id, jid, work] = [containers.id(word), world.jid(word), world.work()]
  const [reached, block, outside] = [join(work, 'reached'), join(work, 'block'), world.work()]
  const script = `echo $$ > ${reached}; while [ -e ${block} ]; do sleep 0.02; done; rm -f ${reached}`
  writeFileSync(join(outside, 'file'), 'of the outside\n')
  const bundle = containers.bundle(id, {
    args: COUNT,
    change: (spec) => {
      spec['hooks'] = { [moment]: [{ path: '/bin/sh', args: ['sh', '-c', script] }] }
      spec.mounts.push({ destination: '/outside', type: 'bind', source: outside, options: ['rbind', 'ro'] })
    },
  })
  const pidIn = (): number | undefined => (existsSync(reached) ? Number(readFileSync(reached, 'utf8')) || undefined : undefined)
  return {
    ...{ id, jid, bundle },
    hold: () => {
      rmSync(reached, { force: true })
      writeFileSync(block, '')
    },
    letGo: () => rmSync(block, { force: true }),
    /** The hook, once it waits; what called it, and what called that. */
    atWork: async () => {
      const hook = await until('the hook waits', pidIn)
      const runtime = processInfo(hook)?.parent ?? 0
      return { hook, runtime, shim: processInfo(runtime)?.parent ?? 0 }
    },
    safe: () => {
      expect(readFileSync(join(outside, 'file'), 'utf8')).toBe('of the outside\n')
      expect(existsSync(join(bundle, 'rootfs/bin/busybox'))).toBe(true)
    },
  }
}
type Held = ReturnType<typeof held>

const cgroups = (id: string): string[] =>
  [CGROUPS, ...readdirSync(CGROUPS).map((name) => join(CGROUPS, name))].map((path) => join(path, id)).filter((path) => existsSync(path))
const mounts = (): string[] =>
  readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((path) => path.startsWith(`${world.dir}/`))

async function nothingIsLeft({ id, safe }: Held, pids: readonly number[]): Promise<void> {
  const left = (): string[] => [
    ...containers.known().filter((known) => known === id),
    ...cgroups(id),
    ...mounts(),
    ...pids.filter(isAlive).map(String),
  ]
  await until('nothing is left of it', () => left().length === 0).catch(() => expect(left()).toEqual([]))
  safe()
}

async function strike(victims: readonly Victim[], { runtime, shim }: { readonly runtime: number; readonly shim: number }): Promise<void> {
  expect(processInfo(shim)?.executable).toMatch(/cedana-shim$/)
  // The daemon first: it is not to see what comes then.
  if (victims.includes('daemon')) await world.killDaemon()
  if (victims.includes('shim')) process.kill(shim, 'SIGKILL')
  if (victims.includes('runtime')) process.kill(runtime, 'SIGKILL')
  if (victims.includes('daemon')) {
    const gone = victims.includes('shim') ? shim : victims.includes('runtime') ? runtime : 0
    await until('it is dead', () => !isAlive(gone))
    await world.startDaemon()
  }
}

/** Its streams are those of what it has started, and stay open. */
async function kill(call: Conversation): Promise<void> {
  call.signal('SIGKILL')
  await until('the command is dead', () => !isAlive(call.pid))
}

const VICTIMS: readonly (readonly Victim[])[] = [
  ['shim'],
  ['runtime'],
  ['shim', 'runtime'],
  ['daemon', 'shim'],
  ['daemon', 'runtime'],
  ['daemon', 'shim', 'runtime'],
]

describe.each([
  ['prestart', VICTIMS],
  ['poststart', VICTIMS.filter((victims) => victims.includes('shim') && victims.length !== 2)],
] as const)('run, at its %s hook', (moment, them) => {
  let one: Held
  beforeAll(() => {
    one = held('run', moment)
  })
  const run = (): string[] => ['run', 'runc', one.id, '--jid', one.jid, '--bundle', one.bundle, '--root', containers.root]

  test.each(them.map((victims) => [victims.join(' and '), victims] as const))('%s', async (_, victims) => {
    one.hold()
    const call = world.talk(run())
    const pids = await one.atWork()
    await strike(victims, pids)
    expect((await call.exit).code).toBe(1)
    expect(call.stderr).toMatch(/^Error: ./m)
    await nothingIsLeft(one, Object.values(pids))
    await until('it is no job', async () => (await world.row(one.jid)) === undefined)
    await until('no directory is left', () => !existsSync(join(world.runDir, 'jobs', one.jid)))
    one.letGo()
    await world.ok(run())
    await world.quick(['kill', one.jid])
    await world.quick(['delete', one.jid])
  })
})

describe('restore, at its prestart hook', () => {
  let one: Held
  const output = (): string => readFileSync(`/var/log/cedana-output-${one.jid}.log`, 'utf8')
  beforeAll(async () => {
    one = held('restore', 'prestart')
    await world.ok(['run', 'runc', one.id, '--jid', one.jid, '--bundle', one.bundle, '--root', containers.root])
    await world.quick(['dump', 'job', one.jid])
  }, 30_000)

  test.each(VICTIMS.map((victims) => [victims.join(' and '), victims] as const))('%s', async (_, victims) => {
    one.hold()
    const call = world.talk(['restore', 'job', one.jid])
    const pids = await one.atWork()
    await strike(victims, pids)
    expect((await call.exit).code).toBe(1)
    await nothingIsLeft(one, Object.values(pids))
    await until('it is halted', async () => (await world.row(one.jid))?.[3] === 'halted')
    one.letGo()
    await world.quick(['restore', 'job', one.jid])
    const { length } = output()
    await until('it counts on', () => output().length > length)
    await world.quick(['dump', 'job', one.jid])
  })
})

describe('--no-server', () => {
  const here = (): string[] => ['--no-server', '--root', containers.root]

  test.each(['prestart', 'poststart'] as const)('run, at its %s hook: the runtime', async (moment) => {
    const one = held('here', moment)
    one.hold()
    const call = world.talk(['run', 'runc', one.id, '--bundle', one.bundle, ...here()])
    const pids = await one.atWork()
    await strike(['runtime'], pids)
    expect((await call.exit).code).toBe(137)
    await nothingIsLeft(one, Object.values(pids))
  })

  test('run: the runtime, while the container runs', async () => {
    const one = held('here', 'prestart')
    const call = world.talk(['run', 'runc', one.id, '--bundle', one.bundle, ...here()])
    await call.says(/5/)
    const { pid } = JSON.parse(await containers.ok('state', one.id)) as { pid: number }
    process.kill(processInfo(pid)?.parent ?? 0, 'SIGKILL')
    expect((await call.exit).code).toBe(137)
    await nothingIsLeft(one, [pid])
  })

  test('run: the shim. The runtime stays, and removes the container at its end', async () => {
    const one = held('here', 'poststart')
    one.hold()
    const call = world.talk(['run', 'runc', one.id, '--bundle', one.bundle, ...here()])
    const pids = await one.atWork()
    await strike(['shim'], pids)
    one.letGo()
    await call.says(/5/)
    call.signal('SIGTERM')
    await containers.ok('kill', one.id, 'KILL')
    expect((await call.exit).code).not.toBe(0)
    await nothingIsLeft(one, Object.values(pids))
  })

  test('run: the command and the runtime, while the container runs; the next daemon cleans up', async () => {
    await world.stopDaemon()
    const one = held('here', 'prestart')
    const call = world.talk(['run', 'runc', one.id, '--bundle', one.bundle, ...here()])
    await call.says(/5/)
    const { pid } = JSON.parse(await containers.ok('state', one.id)) as { pid: number }
    await kill(call)
    expect(isAlive(pid)).toBe(true)
    process.kill(processInfo(pid)?.parent ?? 0, 'SIGKILL')
    await world.startDaemon()
    await nothingIsLeft(one, [pid])
    await until('no directory is left', () => readdirSync(join(world.runDir, 'jobs')).length === 0)
  })

  describe('restore', () => {
    let one: Held
    let path = ''
    beforeAll(async () => {
      one = held('there', 'prestart')
      await world.ok(['run', 'runc', one.id, '--jid', one.jid, '--bundle', one.bundle, '--root', containers.root])
      path = /Dumped to (.*)/.exec((await world.quick(['dump', 'job', one.jid])).stdout)?.[1] ?? ''
    }, 30_000)
    afterAll(() => world.quick(['delete', one.jid]))

    test.each([['runtime'], ['shim and runtime']] as const)('%s', async (named) => {
      one.hold()
      const call = world.talk(['restore', 'runc', '--path', path, ...here()])
      const pids = await one.atWork()
      await strike(named.split(' and ') as Victim[], pids)
      expect((await call.exit).code).not.toBe(0)
      await nothingIsLeft(one, Object.values(pids))
    })

    test('the command and the runtime; the next daemon cleans up', async () => {
      await world.stopDaemon()
      one.hold()
      const call = world.talk(['restore', 'runc', '--path', path, ...here()])
      const pids = await one.atWork()
      await kill(call)
      await strike(['shim', 'runtime'], pids)
      await world.startDaemon()
      await nothingIsLeft(one, Object.values(pids))
      await until('no directory is left', () => readdirSync(join(world.runDir, 'jobs')).length === 0)
    })
  })
})

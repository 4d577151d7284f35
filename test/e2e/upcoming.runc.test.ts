/** `manage --upcoming runc`: a container becomes a job at its first moment, however it comes about, and a wait that ends leaves nothing. */
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { type Containers, useContainers } from '../support/containers.js'
import type { Conversation } from '../support/conversation.js'
import { until } from '../support/wait.js'
import { useWorld, type World } from '../support/world.js'

/** Messages of a daemon, with what they are about. */
const messages = (world: World): Record<string, unknown>[] =>
  readFileSync(world.daemonLog, 'utf8')
    .split('\n')
    .slice(0, -1)
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Record<string, unknown>)

interface Waiting {
  readonly jid: string
  readonly talk: Conversation
  /** The PID that became a job. */
  managed(): Promise<number>
}

/** Waits for that container; the daemon is waiting when this resolves, if there is anything to wait for. */
async function waitFor(world: World, containers: Containers, id: string, flags: readonly string[] = []): Promise<Waiting> {
  const jid = world.jid('up')
  const where = ['--root', containers.root, '--runtime', containers.runtime]
  const talk = world.talk(['manage', 'runc', id, '--upcoming', '--jid', jid, ...where, ...flags])
  await until(
    'the daemon waits',
    () => talk.ended || messages(world).some(({ job, msg }) => job === jid && msg === 'waiting for the target'),
  )
  const managed = async (): Promise<number> => {
    const [, pid] = await talk.says(/Managing runc PID (\d+)/)
    expect(await talk.exit).toEqual({ code: 0 })
    return Number(pid)
  }
  return { jid, talk, managed }
}

const argsOf = async (world: World, jid: string): Promise<unknown> => (await world.inspect(jid))['args']

/** What the kernel's word of an exec, or its absence, makes a difference to. */
function firstMoments(world: World, containers: Containers): void {
  const expecting = (id: string, flags?: readonly string[]): Promise<Waiting> => waitFor(world, containers, id, flags)

  test('a container that is not there yet, nor its state directory', async () => {
    const container = containers.container('new')
    const waiting = await expecting(container.id)
    const pid = await container.run()
    expect(await waiting.managed()).toBe(pid)
    expect(await argsOf(world, waiting.jid)).toEqual(['sleep', '1000'])
    expect((await world.row(waiting.jid))?.slice(1, 3)).toEqual(['runc', String(pid)])
    await container.kill()
    await until('its end is recorded', async () => (await world.inspect(waiting.jid))['status'] === 'halted')
  })

  test('one that is created, and is waited for until it is started', async () => {
    const container = containers.container('created')
    const before = await expecting(container.id)
    const pid = await container.create()
    const after = await expecting(container.id, ['--timeout', '20s'])
    await sleep(300)
    expect([before.talk.ended, after.talk.ended]).toEqual([false, false])
    await container.start()
    const ended = await Promise.all([before.talk.exit, after.talk.exit])
    // Two wait for one container: one gets it, the other is told.
    expect(ended.map(({ code }) => code).sort()).toEqual([0, 1])
    const [winner, loser] = ended[0].code === 0 ? [before, after] : [after, before]
    expect(await winner.managed()).toBe(pid)
    expect(loser.talk.stderr).toContain(`PID ${pid} is already being managed under job ${winner.jid}`)
    expect(await argsOf(world, winner.jid)).toEqual(['sleep', '1000'])
  })

  test('one that is deleted before it was started, and made again', async () => {
    const container = containers.container('deleted')
    const waiting = await expecting(container.id)
    for (let round = 0; round < 2; round++) {
      await container.create()
      await container.remove()
    }
    await sleep(50)
    expect(waiting.talk.ended).toBe(false)
    expect(await container.run()).toBe(await waiting.managed())
  })
}

function lifeOfContainers(world: World, containers: Containers): void {
  const expecting = (id: string): Promise<Waiting> => waitFor(world, containers, id)

  firstMoments(world, containers)

  test('one that runs already', async () => {
    const container = containers.container('running')
    const pid = await container.run()
    expect(await (await expecting(container.id)).managed()).toBe(pid)
  })

  test('one that has died, and starts again', async () => {
    const container = containers.container('again')
    const first = await container.run()
    await container.kill()
    const waiting = await expecting(container.id)
    await sleep(50)
    expect(waiting.talk.ended).toBe(false)
    await container.remove()
    const second = await container.run()
    expect(await waiting.managed()).toBe(second)
    expect(second).not.toBe(first)
  })
}

describe('with process events', () => {
  const world = useWorld()
  const containers = useContainers(world)
  const ofCrun = useContainers(world, 'crun')
  describe('runc', () => lifeOfContainers(world, containers))
  describe('crun', () => lifeOfContainers(world, ofCrun))

  test('several waits for several containers at once', async () => {
    const made = Array.from({ length: 5 }, (_, index) => containers.container(`many${index}`))
    const waits = await Promise.all(made.map(({ id }) => waitFor(world, containers, id)))
    const pids = await Promise.all([...made].reverse().map((container) => container.run()))
    expect(await Promise.all(waits.map((waiting) => waiting.managed()))).toEqual(pids.reverse())
  })

  test('a program that is over at once is a job that has ended, or is waited out', async () => {
    const container = containers.container('short', { args: ['true'] })
    const waiting = await waitFor(world, containers, container.id)
    const pid = await container.run()
    await until('it is over', async () => (await container.state())?.status === 'stopped')
    await sleep(100)
    if ((await world.row(waiting.jid)) === undefined) {
      // Nobody saw it alive: the next one counts.
      await container.remove()
      waiting.talk.signal('SIGINT')
    }
    const { code } = await waiting.talk.exit
    if (code === 0) expect(waiting.talk.stdout).toContain(`Managing runc PID ${pid}`)
    else expect(waiting.talk.stderr).toMatch(/cancelled|does not exist/)
  })

  test('a program that executes another becomes the same job', async () => {
    const container = containers.container('execs', { args: ['sh', '-c', 'exec sleep 1000'] })
    const waiting = await waitFor(world, containers, container.id)
    expect(await container.run()).toBe(await waiting.managed())
  })

  describe('the wait ends', () => {
    const nothingLeft = async ({ jid }: Waiting): Promise<void> => {
      expect(await world.row(jid)).toBeUndefined()
      const { stderr } = await world.fails(['job', 'inspect', jid])
      expect(stderr).toContain(`job ${jid} not found`)
    }

    test('by Ctrl-C, at once', async () => {
      const container = containers.container('interrupted')
      const waiting = await waitFor(world, containers, container.id)
      waiting.talk.signal('SIGINT')
      expect((await waiting.talk.exit).code).not.toBe(0)
      await container.run()
      await sleep(100)
      await nothingLeft(waiting)
    })

    test('with the death of the client, created container or not', async () => {
      const container = containers.container('lonely')
      await container.create()
      const waiting = await waitFor(world, containers, container.id)
      const cancelled = (): number => messages(world).filter(({ verb, code }) => verb === 'Manage' && code === 'CANCELLED').length
      const before = cancelled()
      waiting.talk.signal('SIGKILL')
      await waiting.talk.exit
      await until('the daemon sees it', () => cancelled() > before)
      await container.start()
      await sleep(100)
      await nothingLeft(waiting)
    })

    test('by its time limit', async () => {
      const id = containers.id('late')
      const started = performance.now()
      const { stderr } = await world.fails(['manage', 'runc', id, '--upcoming', '--root', containers.root, '--timeout', '500ms'])
      const ms = performance.now() - started
      expect(stderr).toContain('manage did not finish within 0.5 s')
      expect(ms).toBeGreaterThan(500)
    })

    test('before it begins, under a job id that is taken', async () => {
      const container = containers.container('taken')
      await container.run()
      const first = await waitFor(world, containers, container.id)
      await first.managed()
      const where = ['--root', containers.root]
      const exists = await world.fails(['manage', 'runc', containers.id('other'), '--upcoming', '--jid', first.jid, ...where])
      expect(exists.stderr).toContain(`job ${first.jid} already exists`)
      const second = await waitFor(world, containers, containers.id('other'))
      const busy = await world.fails(['manage', 'runc', containers.id('another'), '--upcoming', '--jid', second.jid, ...where])
      expect(busy.stderr).toContain(`job ${second.jid} is busy`)
      second.talk.signal('SIGINT')
      await second.talk.exit
    })

    test('with the daemon: stopped, at once; killed, the next one knows nothing of it', async () => {
      const container = containers.container('daemon')
      const first = await waitFor(world, containers, container.id)
      expect(await world.stopDaemon()).toBe(0)
      expect((await first.talk.exit).code).toBe(1)
      expect(first.talk.stderr).toContain('the daemon is stopping')
      await world.startDaemon()

      const second = await waitFor(world, containers, container.id)
      await container.create()
      await world.killDaemon()
      expect((await second.talk.exit).code).toBe(1)
      await container.start()
      await world.startDaemon()
      await nothingLeft(second)
      expect((await container.state())?.status).toBe('running')
      await (await waitFor(world, containers, container.id)).managed()
    })

    test('for a kind of target that cannot be waited for', async () => {
      const mistyped = await world.fails(['manage', 'runc', 'never', '--upcoming', '--runtime', 'rnuc'])
      expect(mistyped.stderr).toContain('cannot run rnuc: no such program')
      const { stderr } = await world.fails(['manage', 'process', '1', '--upcoming'])
      expect(stderr).toContain('manage upcoming is not supported for linux processes')
    })
  })
})

describe('without process events', () => {
  // In another network namespace there is no connector.
  const world = useWorld({ daemonUnder: ['unshare', '--net'] })
  const containers = useContainers(world)
  const ofCrun = useContainers(world, 'crun')
  describe('runc', () => firstMoments(world, containers))
  describe('crun', () => firstMoments(world, ofCrun))

  test('the debug log says so, once', () => {
    const said = messages(world).filter(({ msg }) => String(msg).startsWith('no process events'))
    expect(said).toHaveLength(1)
  })
})

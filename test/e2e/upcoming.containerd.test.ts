/** `manage --upcoming containerd`: a task becomes a job when it starts, by the events of containerd. */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { useContainerd } from '../support/containerd.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const world = useWorld()
const containerd = useContainerd(world)

/** From then on a restart of containerd is waited out: one that was never there is not. */
const hears = (id: string): Promise<unknown> =>
  until('containerd tells the daemon of tasks', () =>
    readFileSync(world.daemonLog, 'utf8')
      .split('\n')
      .some((line) => line.includes(id) && line.includes('containerd tells of tasks that start')),
  )

describe('manage --upcoming containerd', () => {
  test('takes a container when its task starts, and one that runs at once', async () => {
    const image = await containerd.busybox()
    const [id, jid] = [containerd.id('upcoming'), world.jid('upcoming')]
    const waiting = world.ok(['manage', 'containerd', '--upcoming', id, '--jid', jid, ...containerd.flags])
    await hears(id)
    // Others, and its own container without a task, are waited out.
    await containerd.run(image, containerd.id('another'), ['sleep', '1000'])
    await containerd.ok('containers', 'create', '--env', world.mark, image, id, 'sleep', '1000')
    await containerd.ok('tasks', 'start', '--detach', id)
    const { stdout } = await waiting
    expect(stdout).toContain(`PID ${(await containerd.task(id))?.pid}`)
    await world.quick(['job', 'kill', jid])
    const again = world.jid('again')
    await until('the task has ended', async () => (await containerd.task(id))?.status === 'STOPPED')
    await containerd.ok('tasks', 'rm', id)
    await containerd.ok('tasks', 'start', '--detach', id)
    await world.ok(['manage', 'containerd', '--upcoming', id, '--jid', again, ...containerd.flags])
    await world.quick(['job', 'kill', again])
  })

  test('outlasts a restart of containerd, and ends when it is told to', async () => {
    const image = await containerd.busybox()
    const [id, jid] = [containerd.id('later'), world.jid('later')]
    const waiting = world.ok(['manage', 'containerd', '--upcoming', id, '--jid', jid, ...containerd.flags])
    await hears(id)
    await containerd.restart('SIGKILL')
    const pid = await containerd.run(image, id, ['sleep', '1000'])
    expect((await waiting).stdout).toContain(`PID ${pid}`)
    await world.quick(['job', 'kill', jid])
    const late = await world.fails(['manage', 'containerd', '--upcoming', 'nobody', '--timeout', '300ms', ...containerd.flags])
    expect(late.stderr).toContain('manage did not finish within 0.3 s')
  })
})

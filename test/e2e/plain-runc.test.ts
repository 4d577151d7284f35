/** Containers without cedana: what the other tests rely on works on this machine, and leaves nothing. */
import { describe, expect, test } from 'vitest'
import { useContainers } from '../support/containers.js'
import { isAlive } from '../support/processes.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const world = useWorld({ withoutDaemon: true })

describe.each(['runc', 'crun'] as const)('%s', (runtime) => {
  const containers = useContainers(world, runtime)

  test('runs, is entered, ends and is deleted', async () => {
    const container = containers.container('plain', { args: ['sh', '-c', 'hostname; exec sleep 1000'] })
    const pid = await container.run()
    expect(isAlive(pid)).toBe(true)
    await until('it writes', () => container.output() === 'box\n')
    expect(await container.state()).toMatchObject({ status: 'running', pid })
    expect(await container.exec('cat', '/proc/1/comm')).toBe('sleep\n')
    await container.kill()
    await container.remove()
    expect(containers.known()).toEqual([])
  })

  test('is created first and started later', async () => {
    const container = containers.container('created', { args: ['sh', '-c', 'echo here; exec sleep 1000'] })
    const pid = await container.create()
    expect(await container.state()).toMatchObject({ status: 'created', pid })
    expect(container.output()).toBe('')
    await container.start()
    await until('it writes', () => container.output() === 'here\n')
  })
})

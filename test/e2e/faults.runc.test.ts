/** Every step of run and restore of a container fails once, before and after it did its work: the runtime then knows of nothing, and the same command works. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { useContainers } from '../support/containers.js'
import { useFailingDaemon } from '../support/failing-daemon.js'
import { type Point, pointName } from '../support/faults.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const world = useWorld({ withoutDaemon: true })
const containers = useContainers(world)
const { plan, pointsOf } = useFailingDaemon(world)

async function strike(point: Point, args: readonly string[], jid: string): Promise<void> {
  plan.arm(point)
  const outcome = await world.refuses(args)
  expect(plan.isArmed, `${pointName(point)} was not reached`).toBe(false)
  expect(outcome.stderr).toContain(`injected fault ${pointName(point)}`)
  expect(containers.known(), pointName(point)).toEqual([])
  await until(`no directory after ${pointName(point)}`, () => !readdirSync(join(world.runDir, 'jobs')).includes(jid))
}

const COUNT = ['sh', '-c', 'i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done']

test('every failing step', { timeout: 180_000 }, async () => {
  const id = containers.id('faulty')
  const jid = world.jid('faulty')
  const run = ['run', 'runc', id, '--jid', jid, '--bundle', containers.bundle(id, { args: COUNT }), '--root', containers.root]
  const running = await pointsOf('run', () => world.quick(run))
  await world.quick(['kill', jid])
  await world.quick(['delete', jid])
  for (const point of running) {
    await strike(point, run, jid)
    expect(await world.row(jid), pointName(point)).toBeUndefined()
  }
  await world.quick(run)
  await world.quick(['dump', 'job', jid])
  const restore = ['restore', 'job', jid]
  const restoring = await pointsOf('restore', () => world.quick(restore))
  await world.quick(['kill', jid])
  for (const point of restoring) {
    await strike(point, restore, jid)
    expect((await world.row(jid))?.[3], pointName(point)).toBe('halted')
  }
  await world.quick(restore)
  expect(containers.known()).toEqual([id])
  await world.quick(['kill', jid])
})

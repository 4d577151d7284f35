/**
 * The steps of run and restore that have to do with containerd fail once, before and after they did their work: then it is as before, and the same command
 * works. The others are those of every container (faults.runc.test.ts).
 */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { useContainerd } from '../support/containerd.js'
import { useFailingDaemon } from '../support/failing-daemon.js'
import { type Point, pointName } from '../support/faults.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const world = useWorld({ withoutDaemon: true })
const containerd = useContainerd(world)
const { plan, pointsOf } = useFailingDaemon(world)

const isOurs = ({ step }: Point): boolean => ['start', 'criu restore', 'record start'].includes(step)

/** `containers`: those that there are afterwards; none has a task. */
async function strike(point: Point, args: readonly string[], jid: string, containers: readonly string[]): Promise<void> {
  plan.arm(point)
  const outcome = await world.refuses(args)
  expect(plan.isArmed, `${pointName(point)} was not reached`).toBe(false)
  expect(outcome.stderr).toContain(`injected fault ${pointName(point)}`)
  expect(await containerd.containers(), pointName(point)).toEqual(containers)
  if (containers.length > 0) expect(await containerd.task(jid), pointName(point)).toBeUndefined()
  await until(`no directory after ${pointName(point)}`, () => !readdirSync(join(world.runDir, 'jobs')).includes(jid))
}

const COUNT = ['sh', '-c', 'i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done']

test('every failing step of its own', { timeout: 180_000 }, async () => {
  const jid = world.jid('faulty')
  const run = ['run', 'containerd', await containerd.busybox(), '--jid', jid, ...containerd.flags, '--', ...COUNT]
  const running = await pointsOf('run', () => world.quick(run))
  await world.quick(['kill', jid])
  await world.quick(['delete', jid])
  for (const point of running.filter(isOurs)) {
    await strike(point, run, jid, [])
    expect(await world.row(jid), pointName(point)).toBeUndefined()
  }
  await world.quick(run)
  await world.quick(['dump', 'job', jid, '--rootfs'])
  const restore = ['restore', 'job', jid]
  const restoring = await pointsOf('restore', () => world.quick(restore))
  await world.quick(['dump', 'job', jid, '--rootfs'])
  for (const point of restoring.filter(isOurs)) {
    await strike(point, restore, jid, [jid])
    expect((await world.row(jid))?.[3], pointName(point)).toBe('halted')
  }
  await world.quick(restore)
  expect((await containerd.task(jid))?.status).toBe('RUNNING')
  await world.quick(['kill', jid])
  expect(await containerd.writableLayers()).toEqual([])
})

/** Every step of run and restore of a container fails once, before and after it did its work: the runtime then knows of nothing, and the same command works. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { loadConfig } from '../../src/daemon/config.js'
import { startDaemon } from '../../src/daemon/main.js'
import { useContainers } from '../support/containers.js'
import { failing, type Point, pointName } from '../support/faults.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const world = useWorld({ withoutDaemon: true })
const containers = useContainers(world)
const plan = failing()
const stop = new AbortController()
let daemon: Promise<void>

beforeAll(async () => {
  const { config } = loadConfig({ env: { ...world.env, CEDANA_LOG_LEVEL: 'disabled' }, uid: 0 })
  await new Promise<void>((onReady, reject) => {
    daemon = startDaemon(config, { signal: stop.signal, faults: plan, onReady: () => onReady() })
    daemon.catch(reject)
  })
}, 30_000)
afterAll(async () => {
  stop.abort()
  await daemon
})

/** The points an operation passes when all goes well. */
async function pointsOf(operation: string, work: () => Promise<unknown>): Promise<readonly Point[]> {
  plan.seen.length = 0
  await work()
  const points = plan.seen.filter((point) => point.operation === operation)
  expect(points.length).toBeGreaterThan(10)
  return points
}

async function strike(point: Point, args: readonly string[], jid: string): Promise<void> {
  plan.arm(point)
  const outcome = await world.fails(args)
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
  const running = await pointsOf('run', () => world.ok(run))
  await world.ok(['kill', jid])
  await world.ok(['delete', jid])
  for (const point of running) {
    await strike(point, run, jid)
    expect(await world.row(jid), pointName(point)).toBeUndefined()
  }
  await world.ok(run)
  await world.ok(['dump', 'job', jid])
  const restore = ['restore', 'job', jid]
  const restoring = await pointsOf('restore', () => world.ok(restore))
  await world.ok(['kill', jid])
  for (const point of restoring) {
    await strike(point, restore, jid)
    expect((await world.row(jid))?.[3], pointName(point)).toBe('halted')
  }
  await world.ok(restore)
  expect(containers.known()).toEqual([id])
  await world.ok(['kill', jid])
})

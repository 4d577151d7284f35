/**
 * Each call of the driver that an operation makes fails once (in more ways: test/contract/gpu.ts), and each of its steps. Whatever it is, the target
 * runs on its device again, or was dumped or restored whole.
 */
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Engine } from '../../src/daemon/api/engine.js'
import { useFailingDaemon } from '../support/failing-daemon.js'
import { pointName } from '../support/faults.js'
import { gpuJob, type GpuJob, type Mode, useGpuWorld } from '../support/gpu.js'
import { isAlive } from '../support/processes.js'
import { dumpRequest, engineOf, restoreRequest } from '../support/requests.js'
import { until } from '../support/wait.js'

const { world, gpu } = useGpuWorld({ withoutDaemon: true, env: { CEDANA_GPU_LOCK_TIMEOUT_MS: '1000' } })
const { plan, pointsOf } = useFailingDaemon(world)
let engine: Engine
beforeAll(() => {
  engine = engineOf(world)
})
afterEach(() => {
  gpu().arm()
  plan.arm(undefined)
  forget()
})
afterAll(() => engine.close())

const checkpoint = (): string => join(world.checkpoints, 'one')
const forget = (): void => rmSync(checkpoint(), { recursive: true, force: true })
const notes = (): string[] => (existsSync(join(world.runDir, 'gpu')) ? readdirSync(join(world.runDir, 'gpu')) : [])

/** How many calls `work` makes, of a driver that does all that it is asked. */
async function callsOf(work: () => Promise<unknown>): Promise<number> {
  gpu().arm()
  await work()
  return gpu().calls().length
}

/** With each call failing in its turn; `work` answers whether it succeeded all the same. */
async function eachCall(count: number, mode: Mode, work: () => Promise<void>): Promise<void> {
  for (let call = 1; call <= count; call++) {
    gpu().arm({ call, mode })
    const title = (): string => `call ${call} ${mode} (${gpu().calls()[call - 1] ?? `not reached: ${String(lastFailure)}`})`
    await work().catch((thrown: unknown) => {
      throw new Error(`${title()}: ${String(thrown)}`, { cause: thrown })
    })
    expect(gpu().calls().length, title()).toBeGreaterThanOrEqual(call)
    expect(notes(), title()).toEqual([])
  }
}

let lastFailure: unknown
const succeeds = (work: Promise<unknown>): Promise<boolean> =>
  work.then(
    () => true,
    (thrown: unknown) => {
      lastFailure = thrown
      return false
    },
  )

const dump = (job: GpuJob, leaveRunning: boolean): Promise<unknown> => engine.dump(dumpRequest(job.jid, { name: 'one', leaveRunning }))
describe('every failing call', () => {
  test.each([
    { processes: 1, mode: 'abort' as const },
    { processes: 2, mode: 'after' as const },
  ])('of a dump of $processes processes that run on, $mode', async ({ processes, mode }) => {
    const job = await gpuJob(world, gpu(), processes)
    const count = await callsOf(() => dump(job, true))
    expect(count).toBe(14 * processes)
    forget()
    let released = 0
    await eachCall(count, mode, async () => {
      const isDone = await succeeds(dump(job, true))
      // To take it away must not fail, to give it back is tried again.
      expect(isDone).toBe(existsSync(checkpoint()))
      if (isDone) released++
      forget()
      await job.works()
    })
    expect(released).toBe(10 * processes)
    await job.verify()
  })

  test('of a dump of two processes that end', async () => {
    const job = await gpuJob(world, gpu(), 2)
    await eachCall(4 * 2, 'before', async () => {
      expect(await succeeds(dump(job, false))).toBe(false)
      expect(existsSync(checkpoint())).toBe(false)
      await job.works()
    })
    await dump(job, false)
    forget()
    expect(isAlive(job.pid)).toBe(false)
  })

  test.each([
    { processes: 1, mode: 'abort' as const },
    { processes: 2, mode: 'before' as const },
  ])('of a restore of $processes processes, $mode', async ({ processes, mode }) => {
    const job = await gpuJob(world, gpu(), processes)
    await dump(job, false)
    const restore = (): Promise<unknown> => engine.restore(restoreRequest(job.jid, { path: checkpoint() }))
    const kill = async (): Promise<void> => {
      await engine.killJobs({ jids: [job.jid], all: false, signal: 9, graceMs: 5000 })
      await until('the job is gone', () => !isAlive(job.pid) && !existsSync(join(world.runDir, 'jobs', job.jid)))
    }
    const count = await callsOf(restore)
    expect(count).toBe(12 * processes)
    await kill()
    await eachCall(count, mode, async () => {
      if (await succeeds(restore())) {
        await job.works()
        await kill()
      } else {
        await until('nothing is left', () => !isAlive(job.pid))
        expect(await engine.listJobs({ allHosts: false, jids: [job.jid], brief: true })).toMatchObject([{ status: 'halted' }])
      }
    })
    await restore()
    await job.works()
    await job.verify()
    forget()
  })

  test('with a process that loses its device: it is said, and the checkpoint stays', async () => {
    const job = await gpuJob(world, gpu(), 2)
    gpu().arm({ call: 8, mode: 'lose' })
    await expect(dump(job, true)).rejects.toMatchObject({
      code: 'GPU_FAILED',
      suppressed: [expect.objectContaining({ message: expect.stringContaining('lost its GPU') })],
    })
    expect(existsSync(checkpoint())).toBe(false)
    await engine.killJobs({ jids: [job.jid], all: false, signal: 9, graceMs: 0 })

    const other = await gpuJob(world, gpu(), 1)
    gpu().arm({ call: 7, mode: 'lose' })
    await expect(dump(other, true)).rejects.toMatchObject({
      code: 'GPU_FAILED',
      message: expect.stringMatching(/checkpoint .* is complete, but .*lost its GPU/),
    })
    await engine.killJobs({ jids: [other.jid], all: false, signal: 9, graceMs: 5000 })
    gpu().arm()
    await until('the job is gone', () => !isAlive(other.pid) && !existsSync(join(world.runDir, 'jobs', other.jid)))
    await engine.restore(restoreRequest(other.jid, { path: checkpoint() }))
    await other.works()
    forget()
  })
})

describe('every failing step', () => {
  test('of a dump that runs on leaves the job on its device', { timeout: 120_000 }, async () => {
    const job = await gpuJob(world, gpu(), 2)
    const points = await pointsOf('dump', () => dump(job, true))
    expect(points.map(({ step }) => step)).toEqual(expect.arrayContaining(['note gpu', 'lock gpu', 'copy from gpu', 'copy to gpu']))
    forget()
    for (const point of points) {
      plan.arm(point)
      expect(await succeeds(dump(job, true)), pointName(point)).toBe(false)
      expect(existsSync(checkpoint()), pointName(point)).toBe(false)
      expect(notes(), pointName(point)).toEqual([])
      await job.works()
    }
    await job.verify()
  })

  test('of a restore leaves no process', { timeout: 120_000 }, async () => {
    const job = await gpuJob(world, gpu(), 2)
    await dump(job, false)
    const restore = (): Promise<unknown> => engine.restore(restoreRequest(job.jid, { path: checkpoint() }))
    const points = await pointsOf('restore', restore)
    await engine.killJobs({ jids: [job.jid], all: false, signal: 9, graceMs: 5000 })
    for (const point of points) {
      plan.arm(point)
      expect(await succeeds(restore()), pointName(point)).toBe(false)
      await until(`no process after ${pointName(point)}`, () => !isAlive(job.pid))
      expect(notes(), pointName(point)).toEqual([])
    }
    await restore()
    await job.works()
    await job.verify()
    forget()
  })
})

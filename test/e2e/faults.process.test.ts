/** Every step of run, dump and restore fails once, before and after it did its work: nothing is lost, nothing is left, nothing is locked. */
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { useFailingDaemon } from '../support/failing-daemon.js'
import { type Point, pointName } from '../support/faults.js'
import { isAlive } from '../support/processes.js'
import { program } from '../support/programs.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const world = useWorld({ withoutDaemon: true })
const { plan, pointsOf } = useFailingDaemon(world)

const isRunning = (pid: number): boolean => pid > 0 && isAlive(pid)
const jobDirectories = (): string[] => readdirSync(join(world.runDir, 'jobs'))

/** Runs `work` with the fault armed; it must fail, and say so. */
async function strike(point: Point, args: readonly string[]): Promise<void> {
  plan.arm(point)
  const outcome = await world.refuses(args)
  expect(plan.isArmed, `${pointName(point)} was not reached`).toBe(false)
  expect(outcome.stderr).toContain(`injected fault ${pointName(point)}`)
}

describe('every failing step', () => {
  test('of run leaves no process, no job and no directory', async () => {
    const counter = await program('counter')
    const sample = world.jid('sample')
    const points = await pointsOf('run', () => world.quick(['run', 'process', '--jid', sample, '--', counter]))
    await world.quick(['kill', sample])
    for (const point of points) {
      const jid = world.jid('run')
      await strike(point, ['run', 'process', '--jid', jid, '--', counter])
      expect(await world.row(jid), pointName(point)).toBeUndefined()
      await until(`no directory after ${pointName(point)}`, () => !jobDirectories().includes(jid))
      // The lock and the name are free: the same command works now.
      await world.quick(['run', 'process', '--jid', jid, '--', counter])
      await world.quick(['kill', jid])
      await world.quick(['delete', jid])
    }
  }, 120_000)

  test('of dump leaves the job running, or safe in a complete checkpoint', async () => {
    const sample = await world.job('counter')
    const points = await pointsOf('dump', () => world.dump(sample))
    let job = await world.job('counter')
    for (const point of points) {
      await strike(point, ['dump', 'job', job.jid, '--name', 'faulty'])
      const path = join(world.checkpoints, 'faulty')
      // With a checkpoint it has been killed, and may be about to end.
      await until(`a job or a checkpoint after ${pointName(point)}`, () => isRunning(job.pid) !== existsSync(path))
      if (isRunning(job.pid)) {
        expect((await world.quick(['checkpoints', job.jid])).stdout).toContain('No checkpoints found')
        const lines = job.output().length
        await until(`the job counts on after ${pointName(point)}`, () => job.output().length > lines)
      } else {
        await world.quick(['checkpoint', 'verify', path])
        expect((await world.quick(['checkpoints', job.jid])).stdout).toContain(path)
        await world.quick(['restore', 'job', job.jid])
        await world.quick(['kill', job.jid])
        rmSync(path, { recursive: true })
        job = await world.job('counter')
      }
      expect(readdirSync(world.checkpoints).filter((name) => name.startsWith('.'))).toEqual([])
      // Not locked.
      await world.quick(['dump', 'job', job.jid, '--dry-run'])
    }
    await world.quick(['kill', job.jid])
  }, 180_000)

  test('of restore leaves no process, and the job as it was', async () => {
    const job = await world.job('counter')
    await world.dump(job)
    const points = await pointsOf('restore', () => world.quick(['restore', 'job', job.jid]))
    await world.dump(job)
    for (const point of points) {
      await strike(point, ['restore', 'job', job.jid])
      await until(`no process after ${pointName(point)}`, () => !isRunning(job.pid))
      expect((await world.row(job.jid))?.[3], pointName(point)).toBe('halted')
      await until(`no directory after ${pointName(point)}`, () => !jobDirectories().includes(job.jid))
      const [ours = ''] = readdirSync(join(world.runDir, 'work'))
      expect(readdirSync(join(world.runDir, 'work', ours))).toEqual([])
    }
    await world.quick(['restore', 'job', job.jid])
    const lines = job.output().length
    await until('the job counts on', () => job.output().length > lines)
    await world.quick(['kill', job.jid])
  }, 180_000)
})

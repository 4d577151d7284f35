/** Every test program across a checkpoint: as a job, and as a process that cedana did not start; left running, and killed and brought back. */
import { describe, expect, test } from 'vitest'
import { PROGRAMS, titleOf } from '../programs/table.js'
import { children, isAlive, processInfo, requires } from '../support/processes.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const world = useWorld()

describe('a job is dumped, restored, and verifies its state', () => {
  for (const program of PROGRAMS.filter(({ refused }) => refused === undefined)) {
    const { name, args = [], flags = [], capability } = program
    test(titleOf(program), async (context) => {
      if (capability !== undefined) requires(context, capability)
      const job = await world.job(name, args)
      await world.dump(job, flags)
      expect(processInfo(job.pid), 'nothing of the tree is left').toBeUndefined()
      const { stdout } = await world.ok(['restore', 'job', job.jid, ...flags])
      expect(stdout).toContain(`Restored successfully, PID: ${job.pid}`)
      await job.verify()
    })
  }
})

describe('a process that is no job is left running by a dump, and brought back from it later', () => {
  for (const program of PROGRAMS.filter(({ name, refused }) => refused === undefined && name !== 'memory')) {
    const { name, args = [], flags = [], capability } = program
    test(titleOf(program), async (context) => {
      if (capability !== undefined) requires(context, capability)
      const started = await world.foreign(name, args)
      const before = processInfo(started.pid)
      await world.dump(started, ['--leave-running', ...flags])
      expect(processInfo(started.pid)?.startTicks, 'the same process goes on').toBe(before?.startTicks)
      const path = await world.dump(started, flags)
      expect(isAlive(started.pid)).toBe(false)
      await world.ok(['restore', 'process', '--path', path, ...flags])
      await started.verify()
    })
  }
})

describe('what CRIU cannot dump is refused beforehand, with the reason, and goes on unharmed', () => {
  for (const program of PROGRAMS.filter(({ refused }) => refused !== undefined)) {
    const { name, args = [], flags = [], refused } = program
    test(titleOf(program), async () => {
      const job = await world.job(name, args)
      const { stderr } = await world.fails(['dump', 'job', job.jid, ...flags])
      expect(stderr).toMatch(refused?.message ?? /./)
      expect(stderr).toContain(String(job.pid))
      expect(isAlive(job.pid)).toBe(true)
      await job.verify()
    })
  }

  test.each([
    ['a user namespace alone, which plain CRIU dumps and cannot restore', ['unshare', '-Ur', 'sleep', '1000']],
    ['a child in another PID namespace', ['unshare', '-pf', 'sleep', '1000']],
  ])('%s', async (_, command) => {
    const jid = world.jid('namespace')
    const { stdout } = await world.ok(['run', 'process', '--jid', jid, '--', ...command])
    const pid = Number(/PID (\d+)/.exec(stdout)?.[1])
    await until('it is in its namespace', () => processInfo(pid)?.command.startsWith('sleep') || children(pid).length > 0)
    expect((await world.fails(['dump', 'job', jid])).stderr).toMatch(/FailedPrecondition: process \d+ \(.*\) .*PID namespace/)
    expect(isAlive(pid)).toBe(true)
  })
})

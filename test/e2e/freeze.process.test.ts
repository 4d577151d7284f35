import { describe, expect, test } from 'vitest'
import { isAlive, processInfo, tree } from '../support/processes.js'
import { until } from '../support/wait.js'
import { useWorld, type Job } from '../support/world.js'

const world = useWorld()

/** True while the output does not grow. Looks twice at the interval of many of its steps. */
async function standsStill(job: Job): Promise<boolean> {
  const before = job.output().length
  await new Promise((resolve) => setTimeout(resolve, 150))
  return job.output().length === before
}

describe('freeze and unfreeze', () => {
  test('a job: `Froze process PID <n>`, `Unfroze process PID <n>`; nothing happens in between', async () => {
    const job = await world.job('counter', ['5'])
    await job.says('5')
    expect((await world.ok(['freeze', 'job', job.jid])).stdout).toContain(`Froze process PID ${job.pid}\n`)
    expect(await standsStill(job)).toBe(true)
    expect(await world.inspect(job.jid)).toMatchObject({ is_running: true, is_frozen: true })
    expect((await world.ok(['unfreeze', 'job', job.jid])).stdout).toContain(`Unfroze process PID ${job.pid}\n`)
    await until('it goes on', async () => !(await standsStill(job)))
    await world.quick(['kill', job.jid])
  })

  test('a process with a whole tree', async () => {
    const started = await world.foreign('tree')
    await world.ok(['freeze', 'process', String(started.pid)])
    for (const member of tree(started.pid)) expect(processInfo(member)?.state).toMatch(/[TD]/)
    await world.ok(['unfreeze', 'process', String(started.pid)])
    await started.verify()
  })

  test('twice is once; unfreezing what runs is no error or a clear one, and harmless', async () => {
    const job = await world.job('eventfd')
    await world.ok(['freeze', 'job', job.jid])
    await world.cedana(['freeze', 'job', job.jid])
    await world.ok(['unfreeze', 'job', job.jid])
    await world.cedana(['unfreeze', 'job', job.jid])
    await job.verify()
  })

  test('a frozen job can be killed, and dumped and restored', async () => {
    const killed = await world.job('counter')
    await world.ok(['freeze', 'job', killed.jid])
    await world.quick(['kill', killed.jid])
    await until('it is gone', () => !isAlive(killed.pid))

    const job = await world.job('pipes')
    await world.ok(['freeze', 'job', job.jid])
    await world.dump(job)
    await world.ok(['restore', 'job', job.jid])
    await world.cedana(['unfreeze', 'job', job.jid])
    await job.verify()
  })

  test('children that were stopped before stay stopped afterwards', async () => {
    const job = await world.job('children')
    await world.ok(['freeze', 'job', job.jid])
    await world.ok(['unfreeze', 'job', job.jid])
    await job.verify()
  })

  test('unknown job, missing PID, a job that has ended', async () => {
    expect((await world.fails(['freeze', 'job', 'nobody'])).stderr).toContain('NotFound: job nobody not found')
    expect((await world.fails(['freeze', 'process', '2000000'])).stderr).toContain('NotFound')
    expect((await world.fails(['unfreeze', 'process', '2000000'])).stderr).toContain('NotFound')
    const job = await world.job('eventfd')
    await job.verify()
    await until('it has ended', async () => (await world.inspect(job.jid)).is_running === false)
    expect((await world.fails(['freeze', 'job', job.jid])).stderr).toContain('FailedPrecondition')
  })

  test('the daemon and its shims cannot be frozen, nor can the kernel', async () => {
    await world.fails(['freeze', 'process', String(world.daemonPid)])
    await world.fails(['freeze', 'process', '1'])
    if (processInfo(2)?.command.includes('kthreadd'))
      expect((await world.fails(['freeze', 'process', '2'])).stderr).toContain('process 2 is a kernel thread')
    expect((await world.ok(['ps'])).code).toBe(0)
  })
})

/** The daemon is killed with SIGKILL at each step of run, dump and restore while 20 jobs are alive. Afterwards all are there, and what is said of them is true. */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { useMortalDaemon } from '../support/mortal-daemon.js'
import { isAlive } from '../support/processes.js'
import { program } from '../support/programs.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const JOBS = 20
const world = useWorld({ withoutDaemon: true })
const daemon = useMortalDaemon(world)
const bystanders: { jid: string; pid: number; log: string }[] = []

beforeAll(async () => {
  const counter = await program('counter')
  for (let number = 0; number < JOBS; number++) {
    const jid = world.jid('bystander')
    const { stdout } = await world.quick(['run', 'process', '--jid', jid, '--', counter, '100'])
    bystanders.push({ jid, pid: Number(/PID (\d+)/.exec(stdout)?.[1]), log: `/var/log/cedana-output-${jid}.log` })
  }
}, 120_000)
afterAll(async () => {
  await world.cedana(['kill', ...bystanders.map(({ jid }) => jid)])
}, 60_000)

const STEPS = {
  run: ['plan', 'record job', 'make directory', 'start', 'record start', 'write pid file'],
  dump: [
    'find criu',
    'find target',
    'lock',
    'inspect',
    'ask runtime',
    'plan',
    'open work directory',
    'open checkpoint',
    'write state',
    'open page server',
    'criu dump',
    'save input',
    'flush pages',
    'seal',
    'record checkpoint',
    'let go',
    'wait for end',
  ],
  restore: [
    'find job',
    'lock',
    'open checkpoint',
    'read state',
    'ask runtime',
    'plan',
    'record job',
    'make directory',
    'open work directory',
    'read input',
    'criu restore',
    'record start',
    'write pid file',
  ],
} as const

async function bystandersAreWell(): Promise<void> {
  const rows = new Map((await world.ps()).map((row) => [row[0], row]))
  for (const { jid, pid } of bystanders) {
    expect(isAlive(pid), `${jid} died with the daemon`).toBe(true)
    expect(rows.get(jid)?.[2]).toBe(String(pid))
    // In the middle of a page fault it is neither.
    expect(['running', 'sleep', 'blocked']).toContain(rows.get(jid)?.[3])
  }
}

describe(`kill -9 of the daemon with ${JOBS} jobs alive`, () => {
  test.each(STEPS.run)(
    'after the step `%s` of run',
    async (step) => {
      const counter = await program('counter')
      const jid = world.jid('run')
      await daemon.killAfter('run', step, ['run', 'process', '--jid', jid, '--', counter])
      const row = await world.row(jid)
      // Either it never came to be, or it is a job like any other.
      if (row) {
        expect(['running', 'sleep']).toContain(row[3])
        await world.quick(['kill', jid])
        expect((await world.inspect(jid))['exit']).toMatchObject({ signal: 9 })
      }
      await until('no directory is left', () => !existsSync(join(world.runDir, 'jobs', jid)))
      await bystandersAreWell()
    },
    60_000,
  )

  test.each(STEPS.dump)(
    'after the step `%s` of dump',
    async (step) => {
      const job = await world.job('counter')
      const path = join(world.checkpoints, `killed-${step.replaceAll(' ', '-')}`)
      await daemon.killAfter('dump', step, ['dump', 'job', job.jid, '--name', path.slice(path.lastIndexOf('/') + 1)])
      await until('criu lets go', async () => ((await world.row(job.jid))?.[3] ?? 'stop') !== 'stop')
      if (isAlive(job.pid)) {
        const length = job.output().length
        await until('the job counts on', () => job.output().length > length)
        expect(['running', 'sleep']).toContain((await world.row(job.jid))?.[3])
        await world.quick(['kill', job.jid])
      } else {
        expect((await world.row(job.jid))?.[3]).toBe('halted')
        await world.quick(['checkpoint', 'verify', path])
        await world.quick(['restore', 'job', job.jid, '--path', path])
        const length = job.output().length
        await until('the restored job counts on', () => job.output().length > length)
        await world.quick(['kill', job.jid])
      }
      expect(readdirSync(world.checkpoints).filter((name) => name.startsWith('.'))).toEqual([])
      const numbers = [...job.output().matchAll(/^(\d+)$/gm)].map(([, digits]) => Number(digits))
      expect(numbers).toEqual(numbers.map((_, index) => index + 1))
      await bystandersAreWell()
    },
    60_000,
  )

  test.each(STEPS.restore)(
    'after the step `%s` of restore',
    async (step) => {
      const job = await world.job('counter')
      await world.dump(job)
      await daemon.killAfter('restore', step, ['restore', 'job', job.jid])
      const row = await world.row(job.jid)
      if (row?.[3] === 'halted') await world.quick(['restore', 'job', job.jid])
      const length = job.output().length
      await until('the restored job counts on', () => job.output().length > length)
      await world.quick(['kill', job.jid])
      expect((await world.inspect(job.jid))['exit']).toMatchObject({ signal: 9 })
      const numbers = [...job.output().matchAll(/^(\d+)$/gm)].map(([, digits]) => Number(digits))
      expect(numbers).toEqual(numbers.map((_, index) => index + 1))
      await bystandersAreWell()
    },
    60_000,
  )

  test.each([0, 20, 60, 120])('%i ms after the tree of a restore began to be built, and its memory to be written', async (ms) => {
    const job = await world.job('memory', ['192', 'half'])
    await world.dump(job)
    await daemon.killWhen(['restore', 'job', job.jid], async () => {
      await until('it is being built', () => isAlive(job.pid))
      await new Promise((done) => setTimeout(done, ms))
    })
    const row = await world.row(job.jid)
    if (row?.[3] === 'halted') {
      await until('nothing of it is left', () => !isAlive(job.pid))
      await world.quick(['restore', 'job', job.jid])
    }
    await job.verify()
    await bystandersAreWell()
  })
})

/** kill -9 of the daemon at any moment: afterwards every job is there, with a true status, its whole output and its exit code. */
import { readFileSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, onTestFinished, test } from 'vitest'
import { isAlive, markedProcesses, processInfo } from '../support/processes.js'
import { program } from '../support/programs.js'
import { until } from '../support/wait.js'
import { World, type Job } from '../support/world.js'

async function ownWorld(): Promise<World> {
  const world = new World()
  onTestFinished(() => world.close(), 60_000)
  await world.open()
  return world
}

const expectCount = (text: string): void => {
  const numbers = text
    .split('\n')
    .filter((line) => /^\d+$/.test(line))
    .map(Number)
  expect(numbers).toEqual(numbers.map((_, i) => i + 1))
}

const restart = async (world: World) => {
  await world.killDaemon()
  await world.startDaemon()
}

describe('kill -9 of the daemon with 20 jobs', () => {
  test('at rest: jobs go on, exits meanwhile are known, output is complete, statuses are true', async () => {
    const world = await ownWorld()
    const counter = await program('counter')
    const jobs: Job[] = []
    for (let i = 0; i < 20; i++) jobs.push(await world.job(counter, ['20'], { flags: i % 2 === 0 ? [] : ['--attachable'] }))
    const [early, late, signalled] = jobs
    await early?.says('5')
    await world.killDaemon()
    // Three end while there is no daemon.
    for (const job of [early, late]) process.kill(job?.pid ?? 0, 'SIGTERM')
    process.kill(signalled?.pid ?? 0, 'SIGKILL')
    await until('they have ended', () => [early, late, signalled].every((job) => !isAlive(job?.pid ?? 0)))
    await world.startDaemon()

    const rows = new Map((await world.ps()).map((row) => [row[0], row]))
    expect(rows.size).toBe(20)
    for (const job of jobs) {
      const has = rows.get(job.jid) ?? []
      expect(has[2]).toBe(String(job.pid))
      if ([early, late, signalled].includes(job)) expect(has[3]).toBe('halted')
      else expect(has[3]).toMatch(/^(sleep|running)$/)
    }
    expect((await world.inspect(early?.jid ?? '')).exit).toEqual({ code: 0 })
    expect((await world.inspect(signalled?.jid ?? '')).exit).toEqual({ signal: 9 })
    // Attachable ones can still be attached to, from their first line on.
    const talk = world.talk(['job', 'attach', jobs[5]?.jid ?? ''])
    talk.type('exit 9\n')
    expect((await talk.exit).code).toBe(9)
    expectCount(talk.stdout)
    for (const job of jobs.filter((_, i) => i % 2 === 0)) expectCount(job.output())
    // And dumped and restored.
    const again = jobs[4] as Job
    await world.dump(again)
    await world.quick(['restore', 'job', again.jid])
    await until('it counts on', () => isAlive(again.pid))
    await world.quick(['kill', ...jobs.slice(3).map(({ jid }) => jid)])
    expectCount(again.output())
  }, 90_000)

  test('at every moment of a burst of runs: what was answered is there, what runs is known, nothing runs unknown', async () => {
    const world = await ownWorld()
    const burst = (round: string) => {
      const jids = Array.from({ length: 4 }, (_, i) => world.jid(`${round}-${i}`))
      return { jids, runs: jids.map((jid) => world.cedana(['run', 'process', '--jid', jid, '--', 'sleep', '1000'])) }
    }
    // The moments are parts of what a burst takes on this machine.
    const begun = performance.now()
    for (const { code } of await Promise.all(burst('whole').runs)) expect(code).toBe(0)
    const wholeMs = performance.now() - begun
    for (const percent of [40, 55, 70, 85, 100]) {
      const { jids, runs } = burst(`run${percent}`)
      await sleep((percent / 100) * wholeMs)
      await restart(world)
      const outcomes = await Promise.all(runs)
      const rows = new Map((await world.ps()).map((row) => [row[0], row]))
      for (const [i, outcome] of outcomes.entries()) {
        const row = rows.get(jids[i])
        if (outcome.code === 0) expect(row, `${jids[i]} was confirmed`).toBeDefined()
        if (row !== undefined && row[3] !== 'halted') expect(isAlive(Number(row[2]))).toBe(true)
      }
      const known = new Set([...rows.values()].map((row) => Number(row[2])))
      for (const { pid, command } of markedProcesses(world.mark))
        if (command === 'sleep 1000') expect(known.has(pid), `process ${pid} belongs to a job`).toBe(true)
    }
    await world.quick(['kill', '--all', '--yes'])
  }, 90_000)

  test('at every moment of a dump: the job runs on or its checkpoint is whole and restores; nothing half-made is taken for a checkpoint', async () => {
    const world = await ownWorld()
    const job = await world.job('memory', ['96', 'random'])
    for (const delay of [0, 60, 120, 180, 260, 350, 500]) {
      const dump = world.cedana(['dump', 'job', job.jid])
      await sleep(150 + delay)
      await restart(world)
      await dump
      if (!isAlive(job.pid)) {
        const { is_running: running, end_reason: reason } = await world.inspect(job.jid)
        expect({ running, reason }).toEqual({ running: false, reason: 'dumped' })
        await world.quick(['restore', 'job', job.jid])
      }
      await until('it runs', () => /[SR]/.test(processInfo(job.pid)?.state ?? ''))
      for (const path of JSON.parse((await world.ok(['checkpoints', job.jid, '--output', 'json'])).stdout) as { id: string }[])
        await world.quick(['checkpoint', 'verify', path.id])
    }
    await job.verify()
  }, 120_000)

  test('at every moment of a restore: the job runs whole, or nothing of it does and it can be restored', async () => {
    const world = await ownWorld()
    const job = await world.job('memory', ['64', 'random'])
    await world.dump(job)
    for (const delay of [0, 60, 120, 180, 260, 350]) {
      const restore = world.cedana(['restore', 'job', job.jid])
      await sleep(150 + delay)
      await restart(world)
      await restore
      const view = await until('a settled state', async () => {
        const seen = await world.inspect(job.jid)
        return seen.is_running === isAlive(job.pid) ? seen : undefined
      })
      if (view.is_running === true) {
        await until('it runs', () => /[SR]/.test(processInfo(job.pid)?.state ?? ''))
        await world.dump(job)
      }
    }
    await world.quick(['restore', 'job', job.jid])
    await job.verify()
  }, 120_000)

  test('a boot later, or a recycled PID: the job is halted, and kill does not hit the foreign process (J1)', async () => {
    const world = await ownWorld()
    const started = await world.foreign('counter')
    const jid = world.jid('recycled')
    await world.ok(['manage', 'process', String(started.pid), '--jid', jid])
    await world.killDaemon()
    process.kill(started.pid, 'SIGKILL')
    await until('it is reaped', () => processInfo(started.pid) === undefined)
    // Another process gets the very PID.
    await world.foreign('/usr/bin/python3', ['-c', AS_PID, String(started.pid), await program('counter')])
    await until('it is there', () => processInfo(started.pid)?.command.endsWith('/counter'))
    await world.startDaemon()
    expect((await world.row(jid))?.[3]).toBe('halted')
    await world.quick(['kill', jid])
    await world.fails(['dump', 'job', jid])
    await world.fails(['freeze', 'job', jid])
    expect(isAlive(started.pid)).toBe(true)
    await world.quick(['delete', jid])
  }, 30_000)

  test('a database that is damaged is said so at the start, and is not thrown away', async () => {
    const world = new World({ withoutDaemon: true })
    onTestFinished(() => world.close(), 60_000)
    await world.open()
    writeFileSync(`${world.dir}/cedana.db`, 'this is no database, but somebody may want it back')
    const { stderr } = await world.fails(['daemon', 'start'], { timeoutMs: 10_000 })
    expect(stderr).toContain('cedana.db')
    expect(readFileSync(`${world.dir}/cedana.db`, 'utf8')).toContain('somebody may want it back')
  })

  test('kill -9 of a shim: the daemon does not fall, the job is told truly', async () => {
    const world = await ownWorld()
    const job = await world.job('counter')
    process.kill(processInfo(job.pid)?.parent ?? 0, 'SIGKILL')
    await until('a true status', async () => (await world.inspect(job.jid)).is_running === isAlive(job.pid))
    await world.cedana(['kill', job.jid])
    await until('it is gone', () => !isAlive(job.pid))
    await until('and halted', async () => (await world.inspect(job.jid)).is_running === false)
  })
})

/** Runs a program under a PID that is free, and leaves those of everybody else as they come. */
const AS_PID = `
import ctypes, os, struct, sys
pid = ctypes.c_int32(int(sys.argv[1]))
arguments = struct.pack('11Q', 0, 0, 0, 0, 17, 0, 0, 0, ctypes.addressof(pid), 1, 0)
made = ctypes.CDLL(None, use_errno=True).syscall(435, arguments, len(arguments))
if made == 0: os.execv(sys.argv[2], sys.argv[2:])
if made < 0: sys.exit('clone3: ' + os.strerror(ctypes.get_errno()))
os.waitpid(made, 0)
`

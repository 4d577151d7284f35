import { cpSync, existsSync, readFileSync, readdirSync, renameSync, rmSync, statSync, writeFileSync, appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { isAlive, processInfo } from '../support/processes.js'
import { program } from '../support/programs.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const world = useWorld()

const end = (jid: string) => until(`${jid} has ended`, async () => (await world.inspect(jid)).is_running === false)

/** Contents and times of everything below. */
const look = (path: string): unknown =>
  readdirSync(path, { recursive: true, encoding: 'utf8' })
    .sort()
    .map((name) => [name, statSync(join(path, name)).mtimeMs, statSync(join(path, name)).uid, statSync(join(path, name)).size])

describe('restore', () => {
  test('`Restored successfully, PID: <pid>`; [must] the PID does not change', async () => {
    const job = await world.job('tree')
    await world.dump(job)
    const { stdout } = await world.ok(['restore', 'job', job.jid])
    expect(stdout.trimEnd().split('\n').at(-1)).toBe(`Restored successfully, PID: ${job.pid}`)
    expect((await world.row(job.jid))?.[2]).toBe(String(job.pid))
    await job.verify()
  })

  test('the latest checkpoint by default, another one by --path', async () => {
    const job = await world.job('counter', ['20'])
    const first = await world.dump(job, ['--leave-running'])
    await job.says('200')
    await world.dump(job)
    await world.ok(['restore', 'job', job.jid, '--attachable'])
    await world.quick(['kill', job.jid])
    await end(job.jid)
    await world.ok(['restore', 'job', job.jid, '--path', first, '--attachable'])
    const talk = world.talk(['job', 'attach', job.jid])
    await talk.says(/^\d+$/m)
    expect(Number(/^\d+$/m.exec(talk.stdout)?.[0])).toBeLessThan(200)
    await world.quick(['kill', job.jid])
    await talk.exit
  })

  test('the log goes on where it was: nothing lost, nothing repeated, nothing cut off (D5)', async () => {
    const job = await world.job('counter', ['5'])
    for (let round = 1; round <= 3; round++) {
      await job.says(String(round * 30))
      await world.dump(job)
      await world.ok(['restore', 'job', job.jid])
    }
    await job.says('120')
    await world.quick(['kill', job.jid])
    const numbers = job
      .output()
      .trim()
      .split('\n')
      .filter((line) => !line.startsWith('!'))
      .map(Number)
    expect(numbers).toEqual(numbers.map((_, i) => i + 1))
  })

  test('a job that is restored while something of its former life goes on keeps its supervisor when that ends', async () => {
    const jid = world.jid('former')
    const cwd = world.work()
    // Not in the tree of the job, and has its output open.
    const script = '(setsid sleep 1000 & echo $! > former); while :; do echo on; sleep 0.05; done'
    await world.ok(['run', 'process', '--jid', jid, '--attachable', '--', 'sh', '-c', script], { cwd })
    const file = join(cwd, 'former')
    const former = await until('it has begun', () => (existsSync(file) ? Number(readFileSync(file, 'utf8')) || undefined : undefined))
    await world.ok(['dump', 'job', jid])
    await world.ok(['restore', 'job', jid, '--attachable'])
    expect(isAlive(former)).toBe(true)
    process.kill(former, 'SIGKILL')
    await until('its former life ends', () => !isAlive(former))
    await new Promise((resolve) => setTimeout(resolve, 300))
    const talk = world.talk(['job', 'attach', jid])
    await talk.says('on')
    await world.quick(['kill', jid])
    expect((await talk.exit).code).toBe(137)
  })

  test('the exit code of a restored job is stored', async () => {
    const job = await world.job('/bin/sh', ['-c', 'trap "exit 42" USR1; echo up; while :; do sleep 0.02; done'])
    await job.says('up')
    await world.dump(job)
    await world.ok(['restore', 'job', job.jid])
    process.kill(job.pid, 'SIGUSR1')
    await end(job.jid)
    expect((await world.inspect(job.jid)).exit).toEqual({ code: 42 })
  })

  test('a checkpoint is not used up and not changed by restores (D6)', async () => {
    const job = await world.job('memory', ['4', 'random'])
    const path = await world.dump(job)
    const before = look(path)
    for (let round = 0; round < 3; round++) {
      await world.ok(['restore', 'job', job.jid])
      await world.quick(['kill', job.jid])
      await end(job.jid)
    }
    expect(look(path)).toEqual(before)
    await world.ok(['restore', 'job', job.jid])
    await job.verify()
  })

  test('a checkpoint that was moved is found by --path', async () => {
    const job = await world.job('pipes')
    const path = await world.dump(job, ['--compression', 'gzip'])
    const moved = join(world.work(), 'moved.tar.gz')
    renameSync(path, moved)
    expect((await world.fails(['restore', 'job', job.jid])).stderr).toContain(path)
    await world.ok(['restore', 'job', job.jid, '--path', moved])
    await job.verify()
  })

  test('[must] the PID file', async () => {
    const job = await world.job('eventfd')
    await world.dump(job)
    const file = join(world.work(), 'pid')
    await world.ok(['restore', 'job', job.jid, '--pid-file', file])
    expect(readFileSync(file, 'utf8')).toBe(String(job.pid))
    await job.verify()
  })

  test('--leave-stopped', async () => {
    const job = await world.job('eventfd')
    await world.dump(job)
    await world.ok(['restore', 'job', job.jid, '--leave-stopped'])
    await until('it is stopped', () => processInfo(job.pid)?.state === 'T')
    process.kill(job.pid, 'SIGCONT')
    await job.verify()
  })

  test('--dry-run names the problems and starts nothing', async () => {
    const job = await world.job('eventfd')
    const path = await world.dump(job, ['--leave-running'])
    const outcome = await world.cedana(['restore', 'process', '--path', path, '--dry-run'])
    expect(outcome.stdout + outcome.stderr).toContain(String(job.pid))
    await job.verify()
    await end(job.jid)
    expect((await world.ok(['restore', 'process', '--path', path, '--dry-run'])).stdout).not.toContain('Restored')
    expect(isAlive(job.pid)).toBe(false)
  })

  test('restore process --attachable makes a new job with a random id', async () => {
    const started = await world.foreign('counter', ['20'])
    await started.says('5')
    const path = await world.dump(started)
    await world.ok(['restore', 'process', '--path', path, '--attachable'])
    const row = (await world.ps()).find((cells) => cells[2] === String(started.pid))
    expect(row?.[0]).toMatch(/^[a-z]+_[a-z]+[0-9]$/)
    await world.quick(['kill', row?.[0] ?? ''])
  })

  test('[must] restore process --attach: output, then the exit code of the process', async () => {
    const job = await world.job('counter', ['20'], { flags: ['--attachable'] })
    const path = await world.dump(job)
    const talk = world.talk(['restore', 'process', '--path', path, '--attach'])
    await talk.says(/^\d+$/m)
    talk.type('exit 42\n')
    expect((await talk.exit).code).toBe(42)
  })

  test('memory of a dozen MiB from a checkpoint in --dir on another file system', async () => {
    const disk = world.smallDisk(40_000)
    const job = await world.job('memory', ['12', 'random'])
    const path = await world.dump(job, ['--dir', disk])
    expect(path.startsWith(disk)).toBe(true)
    await world.ok(['restore', 'job', job.jid])
    await job.verify()
    rmSync(path, { recursive: true })
  })
})

describe('restore that cannot work: nothing is started', () => {
  test('[must] an unknown JID: `NotFound: job X not found`', async () => {
    expect((await world.fails(['restore', 'job', 'nobody'])).stderr).toContain('NotFound: job nobody not found')
  })

  test('a running job: `FailedPrecondition: job X is already running`', async () => {
    const job = await world.job('eventfd')
    await world.dump(job, ['--leave-running'])
    expect((await world.fails(['restore', 'job', job.jid])).stderr).toContain(`FailedPrecondition: job ${job.jid} is already running`)
    await job.verify()
  })

  test('a job without a checkpoint', async () => {
    const job = await world.job('eventfd')
    await job.verify()
    await end(job.jid)
    expect((await world.fails(['restore', 'job', job.jid])).stderr).toContain(`FailedPrecondition: job ${job.jid} has no saved checkpoint`)
  })

  test('[must] a path that is missing', async () => {
    expect((await world.fails(['restore', 'process', '--path', '/no/such/checkpoint'])).stderr).toContain('/no/such/checkpoint')
    await world.fails(['restore', 'process'])
  })

  test('[must] an unknown extension: `Unsupported compression format: .jibberish`', async () => {
    const job = await world.job('eventfd')
    const path = await world.dump(job, ['--compression', 'tar'])
    const odd = join(world.work(), 'x.tar.jibberish')
    cpSync(path, odd)
    expect((await world.fails(['restore', 'process', '--path', odd])).stderr).toMatch(/unsupported compression format.*\.jibberish/i)
    expect(isAlive(job.pid)).toBe(false)
  })

  test('things that are no checkpoint: an empty directory, a text file, a tar of something else', async () => {
    const dir = world.work()
    const text = join(world.work(), 'text.tar')
    writeFileSync(text, 'not a tar')
    for (const path of [dir, text, '/etc/passwd', '/dev/null', '/'])
      expect((await world.fails(['restore', 'process', '--path', path])).stderr).toContain(path)
  })

  test('a PID that is in use is found beforehand and named (E6)', async () => {
    const job = await world.job('tree')
    const path = await world.dump(job, ['--leave-running'])
    const { stderr } = await world.fails(['restore', 'process', '--path', path])
    expect(stderr).toContain(String(job.pid))
    expect(stderr).toMatch(/in use|exists|running/i)
    await job.verify()
  })

  test('a file of the program that is gone or has changed is named', async () => {
    const cwd = world.work()
    const job = await world.job('files', [], { cwd })
    await world.dump(job)
    const plain = join(cwd, 'inner', 'plain')
    appendFileSync(plain, 'grown')
    expect((await world.fails(['restore', 'job', job.jid])).stderr).toContain('plain')
    rmSync(plain)
    expect((await world.fails(['restore', 'job', job.jid])).stderr).toContain('plain')
    writeFileSync(plain, '0123456789', { mode: 0o640 })
    await world.ok(['restore', 'job', job.jid])
    await job.verify()
  })

  test('two restores of one job at once: one works, one gets a clear error', async () => {
    const job = await world.job('memory', ['32', 'random'])
    await world.dump(job)
    const both = await Promise.all([1, 2].map(() => world.cedana(['restore', 'job', job.jid])))
    expect(both.map(({ code }) => code).sort()).toEqual([0, 1])
    expect(both.find(({ code }) => code === 1)?.stderr).toMatch(/Aborted|busy|already running/i)
    await job.verify()
  })

  test('after a restore that failed the job is as before: halted, restorable', async () => {
    const job = await world.job('pipes')
    await world.dump(job)
    await world.fails(['restore', 'job', job.jid, '--path', '/etc'])
    expect(await world.row(job.jid)).toContain('halted')
    await world.ok(['restore', 'job', job.jid])
    await job.verify()
  })

  test('no job is left by `restore process --attachable` that failed (J17)', async () => {
    const before = (await world.ps()).length
    await world.fails(['restore', 'process', '--path', '/etc', '--attachable'])
    expect((await world.ps()).length).toBe(before)
  })

  test('--attach and --out exclude each other', async () => {
    await world.fails(['restore', 'process', '--path', '/x', '--attach', '--out', '/y'])
    const path = await program('counter')
    await world.fails(['run', 'process', '--attach', '--out', '/y', '--', path])
    expect(existsSync('/y')).toBe(false)
  })
})

import { execFileSync } from 'node:child_process'
import { createConnection } from 'node:net'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { isAlive, processInfo } from '../support/processes.js'
import { dumpRequest, engineOf } from '../support/requests.js'
import { until } from '../support/wait.js'
import { useWorld, type Job } from '../support/world.js'

const world = useWorld()

/** Runs the failing command and asserts that the target is as it was and that the directory holds nothing new. */
async function leavesNothing(target: Job, args: readonly string[], dir = world.checkpoints): Promise<string> {
  const before = readdirSync(dir).sort()
  const { stderr } = await world.fails(args)
  expect(readdirSync(dir).sort()).toEqual(before)
  expect(isAlive(target.pid)).toBe(true)
  expect(processInfo(target.pid)?.state).not.toMatch(/[Tt]/)
  return stderr
}

describe('dump', () => {
  test('[must] `Dumped to <path>` is the last line; job default name dump-process-<jid>-…', async () => {
    const job = await world.job('memory', ['4', 'half'])
    const { stdout } = await world.ok(['dump', 'job', job.jid, '--leave-running'])
    const path =
      stdout
        .trimEnd()
        .split('\n')
        .at(-1)
        ?.replace(/^Dumped to /, '') ?? ''
    expect(path).toMatch(new RegExp(`^${world.checkpoints}/dump-process-${job.jid}-[\\w-]+$`))
    expect(existsSync(join(path, 'inventory.img'))).toBe(true)
    await job.verify()
  })

  test('of a process: default name dump-process-<number>', async () => {
    const started = await world.foreign('pipes')
    expect(await world.dump(started)).toMatch(/\/dump-process-\d+$/)
    expect(isAlive(started.pid)).toBe(false)
  })

  test.each([
    ['none', ''],
    ['tar', '.tar'],
    ['gzip', '.tar.gz'],
    ['lz4', '.tar.lz4'],
    ['zlib', '.tar.zlib'],
    ['zstd', '.tar.zst'],
  ])('[must] --compression %s gives the suffix `%s`, and the content comes back', async (compression, suffix) => {
    const job = await world.job('memory', ['8', 'half'])
    const name = `of-${compression}`
    const path = await world.dump(job, ['--compression', compression, '--name', name])
    expect(path).toBe(join(world.checkpoints, name + suffix))
    expect(readdirSync(world.checkpoints).filter((entry) => entry.startsWith(name))).toEqual([name + suffix])
    if (suffix !== '') expect(statSync(path).mode & 0o077, 'memory of a process is private').toBe(0)
    await world.ok(['restore', 'job', job.jid])
    await job.verify()
  })

  test('--dir, also relative to the caller and with a slash at the end', async () => {
    const job = await world.job('eventfd')
    const cwd = world.work()
    mkdirSync(join(cwd, 'inner'))
    const { stdout } = await world.ok(['dump', 'job', job.jid, '--dir', 'inner/', '--name', 'x', '--leave-running'], { cwd })
    expect(existsSync(join(cwd, 'inner', 'x', 'inventory.img'))).toBe(true)
    expect(stdout).toContain('inner')
    await job.verify()
  })

  test('two dumps of one job within a second do not collide (D11)', async () => {
    const job = await world.job('eventfd')
    const paths = [await world.dump(job, ['--leave-running']), await world.dump(job, ['--leave-running'])]
    expect(new Set(paths).size).toBe(2)
    await job.verify()
  })

  test('--leave-running: the same process goes on, loses no output, and the checkpoint can be restored later', async () => {
    const job = await world.job('counter', ['5'])
    await job.says('20')
    const before = processInfo(job.pid)
    await world.dump(job, ['--leave-running'])
    expect(processInfo(job.pid)?.startTicks).toBe(before?.startTicks)
    const seen = job.output().trim().split('\n').length
    await until('it goes on', () => job.output().trim().split('\n').length > seen + 5)
    const numbers = job
      .output()
      .trim()
      .split('\n')
      .filter((line) => !line.startsWith('!'))
      .map(Number)
    expect(numbers).toEqual(numbers.map((_, i) => i + 1))
    await world.quick(['kill', job.jid])
  })

  test('a dumped job is halted, keeps its PID, and says why it ended', async () => {
    const job = await world.job('eventfd')
    await world.dump(job)
    expect(await world.row(job.jid)).toEqual(expect.arrayContaining([job.jid, String(job.pid), 'halted']))
    expect(await world.inspect(job.jid)).toMatchObject({ is_running: false, end_reason: 'dumped' })
  })

  test('--result-file has the whole answer as JSON, mode 0644', async () => {
    const job = await world.job('eventfd')
    const file = join(world.work(), 'result.json')
    const path = await world.dump(job, ['--result-file', file])
    expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({ paths: [path], state: { target: { pid: job.pid } } })
    expect(statSync(file).mode & 0o777).toBe(0o644)
  })

  test('--result-file that cannot be written is found before anything is dumped', async () => {
    const job = await world.job('eventfd')
    for (const [file, reason] of [
      ['/no/such/dir/result.json', 'no such file or directory'],
      [world.dir, 'illegal operation on a directory'],
    ] as const) {
      const { stdout, stderr } = await world.fails(['dump', 'job', job.jid, '--result-file', file])
      expect(stderr).toBe(`Error: cannot write ${file}: ${reason}\n  → nothing was done; name a file that can be written\n`)
      expect(stdout).toBe('')
    }
    await job.verify()
  })

  test('--result-file of a dump that fails: there is none, and an older one stays as it was', async () => {
    const work = world.work()
    const [fresh, older] = [join(work, 'fresh.json'), join(work, 'older.json')]
    writeFileSync(older, 'older')
    for (const file of [fresh, older]) await world.fails(['dump', 'process', '1', '--result-file', file])
    expect([existsSync(fresh), readFileSync(older, 'utf8')]).toEqual([false, 'older'])
  })

  test('--result-file that cannot be written to the end: exit 1, but where the checkpoint is, is told', async () => {
    const job = await world.job('eventfd')
    const { stdout, stderr } = await world.fails(['dump', 'job', job.jid, '--leave-running', '--result-file', '/dev/full'])
    expect(stderr).toBe('Error: cannot write /dev/full: no space left on device\n')
    expect(existsSync(/^Dumped to (.*)$/m.exec(stdout)?.[1] ?? '')).toBe(true)
    await job.verify()
  })

  test('--dry-run prints the plan and the problems, and does nothing', async () => {
    const good = await world.job('eventfd')
    const { stdout } = await world.ok(['dump', 'job', good.jid, '--dry-run'])
    expect(stdout).not.toContain('Dumped to')
    expect(stdout).toMatch(/shell_job|manage_cgroups|criu/i)
    const bad = await world.job('uring')
    const outcome = await world.cedana(['dump', 'job', bad.jid, '--dry-run'])
    expect(outcome.stdout + outcome.stderr).toMatch(/io_uring/)
    expect(readdirSync(world.checkpoints).filter((name) => name.includes(good.jid) || name.includes(bad.jid))).toEqual([])
    await good.verify()
    await bad.verify()
  })

  test('--output json prints one JSON document', async () => {
    const job = await world.job('eventfd')
    const { stdout } = await world.ok(['dump', 'job', job.jid, '--leave-running', '--output', 'json'])
    expect(JSON.stringify(JSON.parse(stdout))).toContain(world.checkpoints)
    await job.verify()
  })

  test('--path, as others spell it, is the checkpoint itself: what is exported is imported', async () => {
    const job = await world.job('eventfd')
    const [directory, archive] = [join(world.checkpoints, 'whole'), join(world.checkpoints, 'whole.tar.zst')]
    expect((await world.quick(['dump', 'job', job.jid, '-R', '--images-dir', directory])).stdout).toBe(`Dumped to ${directory}\n`)
    expect(existsSync(join(directory, 'manifest.json'))).toBe(true)
    expect((await world.refuses(['dump', 'job', job.jid, '-D', directory])).stderr).toContain(`${directory} already exists`)
    expect((await world.quick(['dump', 'job', job.jid, '--manage-cgroups-mode', 'soft', '--export', archive])).stdout).toBe(
      `Dumped to ${archive}\n`,
    )
    await world.quick(['restore', 'job', job.jid, '--manage-cgroups-mode', 'ignore', '--import', archive])
    await job.verify()
  })

  test('--print-stats: what CRIU has counted, and how long it took', async () => {
    const job = await world.job('eventfd')
    type Printed = Record<string, number> & {
      container_statistics: (Record<string, number> & { criu_statistics: Record<string, number> })[]
    }
    const stats = async (verb: string) => JSON.parse((await world.quick([verb, 'job', job.jid, '--print-stats'])).stdout) as Printed
    const dumped = await stats('dump')
    const [dump] = dumped.container_statistics
    expect(dump).toMatchObject({ Id: job.jid, criu_statistics: { freezing_time: expect.any(Number) as number } })
    expect(dump!.criu_statistics['frozen_time']).toBeGreaterThan(0)
    expect(dump!.criu_statistics['pages_written']).toBeGreaterThan(0)
    expect(dump!['bytes_stored']).toBeGreaterThan(0)
    expect(dumped['podman_checkpoint_duration']).toBeGreaterThanOrEqual(dump!['runtime_checkpoint_duration']!)
    const restored = await stats('restore')
    const [restore] = restored.container_statistics
    expect(restore!.criu_statistics['restore_time']).toBeGreaterThan(0)
    expect(restored['podman_restore_duration']).toBeGreaterThanOrEqual(restore!['runtime_restore_duration']!)
    await job.verify()
  })

  test('--criu-opts wins over the flags', async () => {
    const job = await world.job('eventfd')
    await world.ok(['dump', 'job', job.jid, '--criu-opts', '{"leave_running": true}'])
    expect(isAlive(job.pid)).toBe(true)
    await job.verify()
  })

  test('[must] with profiling on, the output has `total`; without, not', async () => {
    const job = await world.job('eventfd')
    expect((await world.ok(['dump', 'job', job.jid, '--leave-running'])).stdout).not.toContain('total')
    await job.verify()
  })

  test('an established TCP connection to the outside goes on after restore: nothing lost, nothing repeated', async () => {
    const cwd = world.work()
    const starting = world.job('tcp-server', [], { cwd })
    const port = Number(await until('the port', () => existsSync(join(cwd, 'port')) && readFileSync(join(cwd, 'port'), 'utf8')))
    const client = createConnection(port, '127.0.0.1')
    let heard = ''
    client.setEncoding('utf8').on('data', (text: string) => (heard += text))
    await once(client, 'connect')
    const job = await starting
    const ask = async (line: string, answer: string) => {
      client.write(`${line}\n`)
      await until(`the answer ${answer}`, () => heard.endsWith(`${answer}\n`))
    }
    await ask('a', '1 a')
    await world.dump(job, ['--tcp-established'])
    client.write('sent while it is away\n')
    await world.ok(['restore', 'job', job.jid, '--tcp-established'])
    await until('the answer', () => heard.endsWith('2 sent while it is away\n'), 20_000)
    await ask('b', '3 b')
    expect(heard).toBe('1 a\n2 sent while it is away\n3 b\n')
    await job.verify()
    expect(job.output()).toContain('lines 3')
    client.destroy()
  })

  test.each([
    ['--tcp-established', ['--tcp-close']],
    ['--tcp-close', []],
  ])('%s, with %j at restore: the connection is gone, the program is not', async (flag, flags) => {
    const cwd = world.work()
    const starting = world.job('tcp-server', [], { cwd })
    const port = Number(await until('the port', () => existsSync(join(cwd, 'port')) && readFileSync(join(cwd, 'port'), 'utf8')))
    const client = createConnection(port, '127.0.0.1')
    client.on('error', () => undefined)
    await once(client, 'connect')
    const job = await starting
    await world.dump(job, [flag])
    client.destroy()
    await world.ok(['restore', 'job', job.jid, ...flags])
    await job.verify()
  })
})

describe('dump that fails leaves the target as it was and nothing behind', () => {
  test('[must] unsupported compression: `Unimplemented`, nothing created', async () => {
    const job = await world.job('eventfd')
    for (const bad of ['jibberish', 'gz', 'GZIP ']) {
      const stderr = await leavesNothing(job, ['dump', 'job', job.jid, '--compression', bad])
      expect(stderr).toMatch(/compression/)
    }
    await job.verify()
  })

  test('a directory that does not exist, that is a file, that is not writable (proc)', async () => {
    const job = await world.job('eventfd')
    const file = join(world.work(), 'file')
    writeFileSync(file, '')
    for (const dir of ['/no/such/dir', file, '/proc'])
      expect(await leavesNothing(job, ['dump', 'job', job.jid, '--dir', dir])).toContain(dir)
    await job.verify()
  })

  test('a directory on a file system that is read-only', async () => {
    const job = await world.job('eventfd')
    const disk = world.smallDisk(16_384)
    execFileSync('mount', ['-o', 'remount,ro', disk])
    expect(await leavesNothing(job, ['dump', 'job', job.jid, '--dir', disk], disk)).toBe(
      `Error: PermissionDenied: cannot create a checkpoint in ${disk}: read-only file system\n  → name a file or directory that you may use\n`,
    )
    await job.verify()
  })

  test('a name that exists is not overwritten', async () => {
    const job = await world.job('eventfd')
    await world.dump(job, ['--leave-running', '--name', 'taken'])
    const files = readdirSync(join(world.checkpoints, 'taken')).sort()
    expect(await leavesNothing(job, ['dump', 'job', job.jid, '--name', 'taken'])).toContain('taken')
    expect(readdirSync(join(world.checkpoints, 'taken')).sort()).toEqual(files)
    await job.verify()
  })

  test.each(['none', 'tar', 'zstd'])('a full disk (%s): RESOURCE_EXHAUSTED, and the disk is as free as before', async (compression) => {
    const disk = world.smallDisk(4096)
    const job = await world.job('memory', ['16', 'random'])
    const stderr = await leavesNothing(job, ['dump', 'job', job.jid, '--dir', disk, '--compression', compression], disk)
    expect(stderr).toMatch(/ResourceExhausted|space/i)
    await job.verify()
  })

  test('a full disk in the middle of a compressible dump', async () => {
    // 24 MiB of zeroes and random data halves: an estimate may think it fits.
    const disk = world.smallDisk(10_000)
    const job = await world.job('memory', ['24', 'half'])
    await leavesNothing(job, ['dump', 'job', job.jid, '--dir', disk, '--compression', 'lz4'], disk)
    await job.verify()
  })

  test('CRIU says no: its words, its log kept and named (D7), the target goes on', async () => {
    const job = await world.job('locks')
    const stderr = await leavesNothing(job, ['dump', 'job', job.jid, '--no-file-locks'])
    expect(stderr).toMatch(/lock/i)
    const log = /(\/\S+\.log)/.exec(stderr)?.[1] ?? ''
    expect(readFileSync(log, 'utf8')).toMatch(/Error/)
    await job.verify()
  })

  test('an unlinked file with another name, and --no-link-remap: refused with what to do', async () => {
    const job = await world.job('hardlink')
    expect(await leavesNothing(job, ['dump', 'job', job.jid, '--no-link-remap'])).toMatch(/link-remap/)
    await job.verify()
  })

  test('two dumps of one job at once: one works, the other gets one clear error', async () => {
    const job = await world.job('memory', ['64', 'random'])
    // Of one client, so that the second is there long before the first has ended.
    const engine = engineOf(world)
    const both = await Promise.allSettled([1, 2].map(() => engine.dump(dumpRequest(job.jid, { leaveRunning: true }))))
    engine.close()
    expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    expect(both.find(({ status }) => status === 'rejected')).toMatchObject({ reason: { code: 'JOB_BUSY' } })
    await job.verify()
  })

  test('a dump of a job and of its process at once: never both in one tree', async () => {
    const job = await world.job('memory', ['64', 'random'])
    const both = await Promise.all([
      world.cedana(['dump', 'job', job.jid, '--leave-running']),
      world.cedana(['dump', 'process', String(job.pid), '--leave-running']),
    ])
    for (const outcome of both) if (outcome.code !== 0) expect(outcome.stderr).toMatch(/Aborted|busy/i)
    expect(both.some(({ code }) => code === 0)).toBe(true)
    await job.verify()
  })

  test('[must] a JID that does not exist: `NotFound: job X not found`, exit not 0', async () => {
    expect((await world.fails(['dump', 'job', 'nobody'])).stderr).toContain('NotFound: job nobody not found')
  })

  test('a job that does not run: `FailedPrecondition: job X is not running (status: halted)`', async () => {
    const job = await world.job('eventfd')
    await job.verify()
    await until('it has ended', async () => (await world.inspect(job.jid)).is_running === false)
    expect((await world.fails(['dump', 'job', job.jid])).stderr).toContain(
      `FailedPrecondition: job ${job.jid} is not running (status: halted)`,
    )
  })
})

describe('special targets are refused', () => {
  const nothingNew = async (args: readonly string[]) => {
    const before = readdirSync(world.checkpoints).sort()
    const { stderr } = await world.fails(args)
    expect(readdirSync(world.checkpoints).sort(), '[must] dumping a PID that does not exist leaves nothing').toEqual(before)
    return stderr
  }

  test('[must] a PID that does not exist leaves nothing', async () => {
    const stderr = await nothingNew(['dump', 'process', '2000000'])
    expect(stderr).toContain('NotFound')
    expect(stderr).toContain('2000000')
  })

  test('[must] a PID that is no 32-bit number: client-side error `invalid pid`', async () => {
    for (const pid of ['1764000000000000000', '4294967296', '-1', 'abc', '1.5', '', '0', '0x10', '1e3', ' 7'])
      expect(await nothingNew(['dump', 'process', '--', pid])).toMatch(/invalid pid/i)
  })

  test('the daemon itself', async () => {
    await nothingNew(['dump', 'process', String(world.daemonPid)])
    expect((await world.ok(['ps'])).code).toBe(0)
  })

  test('a tree that has the daemon in it', async () => {
    const parent = processInfo(world.daemonPid)?.parent ?? 0
    await nothingNew(['dump', 'process', String(parent)])
    expect(isAlive(world.daemonPid)).toBe(true)
  })

  test('PID 1 and a kernel thread', async () => {
    await nothingNew(['dump', 'process', '1'])
    if (processInfo(2)?.command.includes('kthreadd')) await nothingNew(['dump', 'process', '2'])
  })

  test('the shim of a job', async () => {
    const job = await world.job('counter')
    const shim = processInfo(job.pid)?.parent ?? 0
    expect(processInfo(shim)?.executable).toMatch(/cedana-shim$/)
    await nothingNew(['dump', 'process', String(shim)])
    await world.quick(['kill', job.jid])
  })

  test('a process that is traced by a debugger is refused, naming the tracer', async () => {
    const job = await world.job('eventfd')
    const tracer = await world.foreign('/usr/bin/python3', ['-c', TRACER, String(job.pid)])
    await tracer.says('traced')
    expect(await nothingNew(['dump', 'job', job.jid])).toContain(String(tracer.pid))
    process.kill(tracer.pid, 'SIGTERM')
    await until('the tracer is gone', () => !isAlive(tracer.pid))
    await job.verify()
  })
})

/** Seizes the process without stopping it. */
const TRACER = `
import ctypes, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.ptrace(0x4206, int(sys.argv[1]), None, None) == 0
print('traced', flush=True)
signal.pause()
`

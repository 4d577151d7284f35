import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { isAlive, processInfo } from '../support/processes.js'
import { plainDump } from '../support/plain-criu.js'
import { program } from '../support/programs.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

/** No daemon: everything happens in the command itself. */
const world = useWorld({ withoutDaemon: true })

describe('run --no-server', () => {
  test('[must] gives the output and the exit code of the process; no `Running managed` line', async () => {
    const outcome = await world.cedana(['run', 'process', '--no-server', '--', 'sh', '-c', 'cat; echo err >&2; exit 42'], { stdin: 'in\n' })
    expect(outcome).toMatchObject({ code: 42, stdout: 'in\n', stderr: 'err\n' })
    expect(readdirSync(join(world.runDir, 'jobs'))).toEqual([])
  })

  test('[must] the PID file is written as well', async () => {
    const file = join(world.work(), 'pid')
    const { stdout } = await world.ok(['run', 'process', '--no-server', '--pid-file', file, '--', 'sh', '-c', 'echo $$'])
    expect(readFileSync(file, 'utf8')).toBe(stdout.trim())
  })

  test('signals are forwarded (J14)', async () => {
    const talk = world.talk([
      'run',
      'process',
      '--no-server',
      '--',
      'sh',
      '-c',
      'trap "echo got; exit 7" TERM; echo up; while :; do sleep 0.02; done',
    ])
    await talk.says('up')
    talk.signal('SIGTERM')
    expect((await talk.exit).code).toBe(7)
    expect(talk.stdout).toContain('got')
  })

  test('a signal that ends the process is 128+n', async () => {
    expect((await world.cedana(['exec', '--no-server', '--', 'sh', '-c', 'kill -TERM $$'])).code).toBe(143)
  })

  test('under a terminal the program is in the foreground and Ctrl-C reaches it', async () => {
    const terminal = world.terminal([
      'exec',
      '--no-server',
      '--',
      'sh',
      '-c',
      'trap "echo int; exit 9" INT; echo up; while :; do sleep 0.02; done',
    ])
    await terminal.says('up')
    terminal.type('\x03')
    expect((await terminal.exit).code).toBe(9)
    expect(terminal.stdout).toContain('int')
  })

  test('--out, --attach and --attachable are ignored and said so', async () => {
    const out = join(world.work(), 'out')
    const outcome = await world.ok(['run', 'process', '--no-server', '--out', out, '--', 'echo', 'x'])
    expect(outcome.stdout + outcome.stderr).toMatch(/ignor/i)
    expect(existsSync(out)).toBe(false)
  })

  test('a program that is not there', async () => {
    await world.fails(['run', 'process', '--no-server', 'no-such-program-anywhere'])
  })
})

describe('dump and restore --no-server', () => {
  test.each(['none', 'tar', 'zstd'])('%s: there and back, state verified; [must] exit = code of the process', async (compression) => {
    const started = await world.foreign('pipes')
    const { stdout } = await world.ok(['dump', 'process', String(started.pid), '--no-server', '--compression', compression])
    const path = /^Dumped to (.+)$/m.exec(stdout)?.[1] ?? ''
    expect(isAlive(started.pid)).toBe(false)
    const restore = world.talk(['restore', 'process', '--no-server', '--path', path])
    await until('it is back', () => restore.ended || processInfo(started.pid)?.state === 'S')
    expect(restore.ended, restore.stderr).toBe(false)
    process.kill(started.pid, 'SIGUSR1')
    expect((await restore.exit).code).toBe(0)
    expect(restore.stdout + started.output()).toContain('PASS')
  })

  test('[must] restore passes the exit code 42 and the output on', async () => {
    const started = await world.foreign('/bin/sh', ['-c', 'trap "echo bye; exit 42" USR1; echo READY; while :; do sleep 0.02; done'])
    await started.says('READY')
    const { stdout } = await world.ok(['dump', 'process', String(started.pid), '--no-server'])
    const restore = world.talk(['restore', 'process', '--no-server', '--path', /^Dumped to (.+)$/m.exec(stdout)?.[1] ?? ''])
    await until('it is back', () => restore.ended || isAlive(started.pid))
    expect(restore.ended, restore.stderr).toBe(false)
    process.kill(started.pid, 'SIGUSR1')
    expect((await restore.exit).code).toBe(42)
    expect(restore.stdout).toContain('bye')
  })

  test('--leave-running', async () => {
    const started = await world.foreign('memory', ['4', 'random'])
    await world.ok(['dump', 'process', String(started.pid), '--no-server', '--leave-running'])
    await started.verify()
  })

  test('failures: bad PID, bad path; nothing is left', async () => {
    const before = readdirSync(world.checkpoints)
    await world.fails(['dump', 'process', '2000000', '--no-server'])
    await world.fails(['restore', 'process', '--no-server', '--path', '/no/such'])
    expect(readdirSync(world.checkpoints)).toEqual(before)
    expect((await world.fails(['restore', 'job', 'x', '--no-server'])).stderr).toContain('NotFound: job x not found')
  })

  test('images of plain criu are restored as well, with the warning that nobody can verify them', async () => {
    const started = await world.foreign('eventfd')
    const images = join(world.work(), 'images')
    await plainDump(started.pid, images, [started.pid])
    const restore = world.talk(['restore', 'process', '--no-server', '--path', images])
    await until('it is back', () => restore.ended || processInfo(started.pid)?.state === 'S')
    expect(restore.ended).toBe(false)
    expect(restore.ended, restore.stderr).toBe(false)
    process.kill(started.pid, 'SIGUSR1')
    expect((await restore.exit).code).toBe(0)
    expect(restore.stdout + restore.stderr).toMatch(/not made by cedana/)
  })

  test('a job of the database is dumped and restored without a daemon (U8)', async () => {
    await world.startDaemon()
    const job = await world.job('pipes')
    await world.stopDaemon()
    const { stdout } = await world.ok(['dump', 'job', job.jid, '--no-server'])
    expect(stdout).toContain('Dumped to ')
    const restore = world.talk(['restore', 'job', job.jid, '--no-server'])
    await until('it is back', () => restore.ended || processInfo(job.pid)?.state === 'S')
    process.kill(job.pid, 'SIGUSR1')
    expect((await restore.exit).code).toBe(0)
    expect(restore.stdout + job.output()).toContain('PASS')
  })
})

describe('profiling', () => {
  test.each([
    ['true', true],
    ['false', false],
  ])('[must] CEDANA_PROFILING_ENABLED=%s: `total` is in the output of run, dump and restore: %s', async (value, expected) => {
    const env = { CEDANA_PROFILING_ENABLED: value }
    const run = await world.ok(['run', 'process', '--no-server', '--', 'true'], { env })
    expect(run.stdout.includes('total')).toBe(expected)
    const started = await world.foreign('eventfd')
    const dump = await world.ok(['dump', 'process', String(started.pid), '--no-server'], { env })
    expect(dump.stdout.includes('total')).toBe(expected)
    expect(dump.stdout.trimEnd().split('\n').at(-1)).toMatch(/^Dumped to /)
    const restore = world.talk(['restore', 'process', '--no-server', '--path', /^Dumped to (.+)$/m.exec(dump.stdout)?.[1] ?? ''], { env })
    await until('it is back', () => processInfo(started.pid)?.state === 'S')
    process.kill(started.pid, 'SIGUSR1')
    await restore.exit
    expect(restore.stdout.includes('total')).toBe(expected)
  })

  test('--profiling-path writes the profile as JSON, mode 0644', async () => {
    const file = join(world.work(), 'profile.json')
    await world.ok(['--profiling', '--profiling-path', file, 'run', 'process', '--no-server', '--', await program('counter')], {
      stdin: 'quit\n',
    })
    expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({ name: 'run' })
  })

  test('one that cannot be written is said, and changes nothing', async () => {
    const args = ['--profiling', '--profiling-path', '/no/such/dir/x', 'run', 'process', '--no-server', '--', 'sh', '-c', 'exit 42']
    expect(await world.cedana(args)).toMatchObject({
      code: 42,
      stderr: 'Warning: cannot write /no/such/dir/x: no such file or directory\n',
    })
  })
})

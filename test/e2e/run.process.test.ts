import { execFile } from 'node:child_process'
import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { isAlive, processInfo } from '../support/processes.js'
import { program } from '../support/programs.js'
import { until } from '../support/wait.js'
import { CEDANA, useWorld } from '../support/world.js'

const world = useWorld()

const ended = (jid: string) => until(`${jid} has ended`, async () => ((await world.inspect(jid)).is_running === false ? true : undefined))

test('in a directory that has been deleted: what needs none works, the rest says what is wrong', async () => {
  const inGone = async (...args: string[]) => {
    const script = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    const outcome = promisify(execFile)('sh', ['-c', script, 'sh', world.work(), CEDANA, ...args], { env: world.env })
    return outcome.catch((failed: unknown) => failed as { readonly code: number; readonly stderr: string })
  }
  expect(await inGone('ps', '-q')).toEqual({ stdout: '', stderr: '' })
  expect(await inGone('exec', 'true')).toMatchObject({
    code: 1,
    stderr: 'Error: the working directory cannot be used: no such file or directory\n  → change to another directory\n',
  })
})

describe('run process', () => {
  test('[must] prints `Running managed process PID <pid>`, which is the process, its session and its group', async () => {
    const jid = world.jid('run')
    const { stdout } = await world.ok(['run', 'process', '--jid', jid, '--', await program('counter')])
    const pid = Number(/^Running managed process PID (\d+)$/m.exec(stdout)?.[1])
    expect(processInfo(pid)).toMatchObject({ pid, group: pid, session: pid })
    expect(await world.row(jid)).toEqual(expect.arrayContaining([jid, 'process', String(pid)]))
  })

  test('[must] the default log is /var/log/cedana-output-<JID>.log, mode 0644, and holds both outputs', async () => {
    const jid = world.jid('log')
    await world.ok(['run', 'process', '--jid', jid, '--', 'sh', '-c', 'echo out; echo err >&2'])
    await ended(jid)
    const log = `/var/log/cedana-output-${jid}.log`
    expect(readFileSync(log, 'utf8')).toBe('out\nerr\n')
    expect(statSync(log).mode & 0o777).toBe(0o644)
    expect((await world.row(jid))?.at(-1)).toBe(log)
  })

  test('[must] flags may stand after the positional arguments: `exec echo hello --jid X` sets the JID', async () => {
    const jid = world.jid('interspersed')
    await world.ok(['exec', 'echo', 'hello', '--jid', jid])
    await ended(jid)
    expect(readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8')).toBe('hello\n')
  })

  test('a flag after -- belongs to the program', async () => {
    const jid = world.jid('dashes')
    await world.ok(['run', 'process', '--jid', jid, '--', 'echo', '--jid', 'x', '--', '-a'])
    await ended(jid)
    expect(readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8')).toBe('--jid x -- -a\n')
  })

  test('without --jid the id is <adjective>_<surname><digit>', async () => {
    await world.ok(['run', 'process', '--out', join(world.work(), 'o'), '--', 'true'])
    const { stdout } = await world.ok(['ps', '-q'])
    expect(stdout.split('\n').filter((jid) => /^[a-z]+_[a-z]+[0-9]$/.test(jid))).toHaveLength(1)
  })

  test('[must] the PID file holds the decimal PID without newline, and is there before the reply', async () => {
    const file = join(world.work(), 'pid')
    const { stdout } = await world.ok(['run', 'process', '--jid', world.jid('pidfile'), '--pid-file', file, '--', 'sleep', '60'])
    expect(stdout).toContain(`PID ${readFileSync(file, 'utf8')}\n`)
    expect(readFileSync(file, 'utf8')).toMatch(/^\d+$/)
  })

  test('a PID file that cannot be written is a message, not a failure', async () => {
    const { stdout, stderr } = await world.ok([
      'run',
      'process',
      '--jid',
      world.jid('nopidfile'),
      '--pid-file',
      '/no/such/dir/pid',
      '--',
      'sleep',
      '60',
    ])
    expect(stdout + stderr).toMatch(/PID file.*\/no\/such\/dir\/pid/i)
  })

  test('environment, working directory, relative path and umask are those of the caller', async () => {
    const cwd = world.work()
    writeFileSync(join(cwd, 'script'), '#!/bin/sh\npwd; echo "$MINE"; umask\n')
    chmodSync(join(cwd, 'script'), 0o755)
    const jid = world.jid('env')
    await world.ok(['run', 'process', '--jid', jid, './script'], { cwd, env: { MINE: 'a b\n=c' } })
    await ended(jid)
    expect(readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8')).toBe(`${cwd}\na b\n=c\n0022\n`)
  })

  test('what is not UTF-8 is not passed on changed: an argument is refused, a variable left out', async () => {
    const [refused, left] = [world.jid('bytes'), world.jid('variable')]
    const shell = (script: string) => promisify(execFile)('bash', ['-c', script, CEDANA], { env: world.env, cwd: world.work() })
    const failure = await shell(`"$0" exec --jid ${refused} printf $'caf\\xe9'`).catch((thrown: unknown) => thrown)
    expect(failure).toMatchObject({ code: 2, stdout: '', stderr: 'Error: argument "caf\uFFFD" is not valid UTF-8\n' })
    const { stderr } = await shell(`NAME=$'caf\\xe9' SIGN=\uFFFD "$0" exec --jid ${left} -- sh -c 'echo "$NAME-$SIGN"'`)
    expect(stderr).toBe('Note: environment variable NAME is not valid UTF-8 and is not passed on\n')
    await ended(left)
    expect(readFileSync(`/var/log/cedana-output-${left}.log`, 'utf8')).toBe('-\uFFFD\n')
  })

  test('standard input of a job with a log is /dev/null, and no other descriptor leaks in', async () => {
    const jid = world.jid('fds')
    await world.ok([
      'run',
      'process',
      '--jid',
      jid,
      '--',
      'sh',
      '-c',
      'for f in /proc/$$/fd/*; do printf "%s " ${f##*/}; readlink $f; done',
    ])
    await ended(jid)
    // The shell has the list itself open while it makes it: a number without a name.
    const lines = readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8').split('\n')
    expect(lines.filter((line) => /^\d+ \S/.test(line))).toEqual([
      '0 /dev/null',
      `1 /var/log/cedana-output-${jid}.log`,
      `2 /var/log/cedana-output-${jid}.log`,
    ])
  })

  test('signals are as a shell leaves them: none blocked, none ignored', async () => {
    const jid = world.jid('signals')
    await world.ok(['run', 'process', '--jid', jid, '--', 'grep', '-E', '^Sig(Blk|Ign)', '/proc/self/status'])
    await ended(jid)
    expect(readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8')).toBe('SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n')
  })

  test.each([
    ['exit 0', { code: 0 }],
    ['exit 42', { code: 42 }],
    ['kill -TERM $$', { signal: 15 }],
    ['kill -KILL $$', { signal: 9 }],
  ])('the exit status of `%s` is stored and shown', async (script, exit) => {
    const jid = world.jid('exit')
    await world.ok(['run', 'process', '--jid', jid, '--', 'sh', '-c', script])
    await ended(jid)
    expect((await world.inspect(jid)).exit).toEqual(exit)
    const { stdout } = await world.ok(['ps', '-o', 'wide'])
    expect(stdout.split('\n').find((line) => line.startsWith(jid))).toMatch(
      'code' in exit ? new RegExp(`\\b${exit.code}\\b`) : new RegExp(`signal ${exit.signal}`),
    )
    expect(await world.row(jid)).toContain('halted')
  })

  test('--out names the log; what stands in it is kept (D5)', async () => {
    const out = join(world.work(), 'my.log')
    writeFileSync(out, 'before\n')
    const jid = world.jid('out')
    await world.ok(['run', 'process', '--jid', jid, '--out', out, '--', 'echo', 'after'])
    await ended(jid)
    expect(readFileSync(out, 'utf8')).toBe('before\nafter\n')
  })

  test('a relative --out is relative to the caller', async () => {
    const cwd = world.work()
    const jid = world.jid('relative')
    await world.ok(['run', 'process', '--jid', jid, '--out', 'here.log', '--', 'echo', 'x'], { cwd })
    await ended(jid)
    expect(readFileSync(join(cwd, 'here.log'), 'utf8')).toBe('x\n')
  })

  test('ten runs at once give ten jobs', async () => {
    const jids = Array.from({ length: 10 }, (_, i) => world.jid(`many${i}`))
    await Promise.all(jids.map((jid) => world.ok(['run', 'process', '--jid', jid, '--', 'sleep', '60'])))
    const rows = await world.ps()
    for (const jid of jids) {
      const pid = Number(rows.find(([first]) => first === jid)?.[2])
      expect(isAlive(pid)).toBe(true)
    }
    await world.quick(['job', 'kill', ...jids])
  })

  test('an environment of 1.5 MiB goes through', async () => {
    const jid = world.jid('bigenv')
    const big = Object.fromEntries(Array.from({ length: 15 }, (_, i) => [`BIG${i}`, 'x'.repeat(100_000)]))
    await world.ok(['run', 'process', '--jid', jid, '--', 'sh', '-c', 'env | wc -c'], { env: big })
    await ended(jid)
    expect(Number(readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8'))).toBeGreaterThan(1_500_000)
  })
})

describe('run process that cannot work: [must] exit 1, and the job is not left in `ps`', () => {
  const gone = async (jid: string) => expect(await world.row(jid)).toBeUndefined()

  test('[must] a program that is not in PATH', async () => {
    const jid = world.jid('nopath')
    const { stderr } = await world.fails(['run', 'process', '--jid', jid, 'no-such-program-anywhere'])
    expect(stderr).toContain('no-such-program-anywhere')
    await gone(jid)
  })

  test('a file that is not executable', async () => {
    const jid = world.jid('noexec')
    const path = join(world.work(), 'plain')
    writeFileSync(path, 'text')
    const { stderr } = await world.fails(['run', 'process', '--jid', jid, path])
    expect(stderr).toContain(path)
    await gone(jid)
  })

  test('a file that is no program', async () => {
    const jid = world.jid('noformat')
    const path = join(world.work(), 'broken')
    writeFileSync(path, '\x7fELF broken')
    chmodSync(path, 0o755)
    await world.fails(['run', 'process', '--jid', jid, path])
    await gone(jid)
  })

  test('a directory', async () => {
    const jid = world.jid('dir')
    await world.fails(['run', 'process', '--jid', jid, world.work()])
    await gone(jid)
  })

  test('a log that cannot be opened; the program is not started', async () => {
    const jid = world.jid('nolog')
    const mark = join(world.work(), 'started')
    const { stderr } = await world.fails(['run', 'process', '--jid', jid, '--out', '/no/such/dir/log', '--', 'touch', mark])
    expect(stderr).toContain('/no/such/dir/log')
    expect(existsSync(mark)).toBe(false)
    await gone(jid)
  })

  test('a job id that exists; the first job goes on', async () => {
    const job = await world.job('counter')
    const { stderr } = await world.fails(['run', 'process', '--jid', job.jid, '--', 'sleep', '60'])
    expect(stderr).toContain(`job ${job.jid} already exists`)
    expect((await world.row(job.jid))?.[2]).toBe(String(job.pid))
  })

  test('two runs of one id at once: one wins, one is told', async () => {
    const jid = world.jid('race')
    const both = await Promise.all([1, 2].map(() => world.cedana(['run', 'process', '--jid', jid, '--', 'sleep', '60'])))
    expect(both.map(({ code }) => code).sort()).toEqual([0, 1])
    expect((await world.ps()).filter(([first]) => first === jid)).toHaveLength(1)
  })
})

describe('run --attach', () => {
  test('[must] gives the output and the exit code of the process', async () => {
    const outcome = await world.cedana([
      'run',
      'process',
      '--jid',
      world.jid('attach'),
      '--attach',
      '--',
      'sh',
      '-c',
      'echo out; echo err >&2; exit 42',
    ])
    expect(outcome).toMatchObject({ code: 42, stdout: 'out\n', stderr: 'err\n' })
  })

  test('passes standard input and its end', async () => {
    const outcome = await world.cedana(['exec', '--attach', '--jid', world.jid('cat'), 'cat'], { stdin: 'one\ntwo' })
    expect(outcome).toMatchObject({ code: 0, stdout: 'one\ntwo' })
  })

  test('loses no byte of a megabyte written at once', async () => {
    const outcome = await world.cedana(['exec', '--attach', '--jid', world.jid('bulk'), '--', 'sh', '-c', 'seq 150000; seq 1000 >&2'])
    expect(outcome.stdout.trim().split('\n')).toEqual(Array.from({ length: 150_000 }, (_, i) => String(i + 1)))
    expect(outcome.stderr.trim().split('\n')).toHaveLength(1000)
  })

  test('a signal that ends the process is 128+n, as in a shell', async () => {
    const outcome = await world.cedana(['exec', '--attach', '--jid', world.jid('killed'), '--', 'sh', '-c', 'kill -TERM $$'])
    expect(outcome.code).toBe(143)
  })

  test('[must] run --attach --pid-file: the file can be polled for while the job runs', async () => {
    const file = join(world.work(), 'pid')
    const talk = world.talk(['run', 'process', '--jid', world.jid('poll'), '--attach', '--pid-file', file, '--', await program('counter')])
    const pid = await until('the pid file', () => (existsSync(file) ? Number(readFileSync(file, 'utf8')) || undefined : undefined))
    expect(isAlive(pid)).toBe(true)
    process.kill(pid, 'SIGTERM')
    expect((await talk.exit).code).toBe(0)
  })
})

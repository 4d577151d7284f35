import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { isAlive, processInfo } from '../support/processes.js'
import { program } from '../support/programs.js'
import { until } from '../support/wait.js'
import { CEDANA, useWorld } from '../support/world.js'

const world = useWorld()

const end = (jid: string) => until(`${jid} has ended`, async () => (await world.inspect(jid)).is_running === false)

describe('job list', () => {
  test('with no jobs: `No jobs found`, for all its names', async () => {
    for (const names of [['ps'], ['jobs'], ['job', 'list'], ['job', 'ls']]) expect((await world.ok(names)).stdout).toBe('No jobs found\n')
  })

  test('the header, and the two hints after a blank line', async () => {
    const job = await world.job('counter')
    const { stdout } = await world.ok(['ps'])
    const lines = stdout.trimEnd().split('\n')
    expect(lines[0]?.trim().split(/\s+/)).toEqual(['JOB', 'TYPE', 'PID', 'STATUS', 'GPU', 'CHECKPOINT', 'SIZE', 'LOG'])
    expect(lines.slice(-3)).toEqual([
      '',
      'Use `job inspect <JID>` for more details about a job',
      'Use `job checkpoint list <JID>` to list all checkpoints for a job',
    ])
    await world.ok(['job', 'kill', job.jid])
  })

  test('[must] awk columns 1 (JID) and 3 (PID) are uncoloured, columns 2, 4, 5 are coloured when colours are forced', async () => {
    const job = await world.job('counter')
    const { stdout } = await world.ok(['ps'], { env: { NO_COLOR: undefined, FORCE_COLOR: '1' } })
    const cells =
      stdout
        .split('\n')
        .find((line) => line.startsWith(job.jid))
        ?.trim()
        .split(/\s+/) ?? []
    expect(cells[0]).toBe(job.jid)
    expect(cells[2]).toBe(String(job.pid))
    for (const column of [1, 3, 4]) expect(cells[column]).toMatch(/^\x1b\[[0-9;]+m.*\x1b\[[0-9;]*m$/)
  })

  test('colours only on terminals (U6)', async () => {
    const job = await world.job('counter')
    const env = { NO_COLOR: undefined, TERM: 'xterm' }
    expect((await world.ok(['ps'], { env })).stdout).not.toContain('\x1b')
    const terminal = world.terminal(['ps'], { env })
    await terminal.exit
    expect(terminal.stdout).toContain('\x1b[')
    await world.ok(['job', 'kill', job.jid])
  })

  test('the checkpoint column has age and size of the latest checkpoint', async () => {
    const job = await world.job('memory', ['2', 'random'])
    await world.dump(job, ['--leave-running'])
    const row = await world.row(job.jid)
    expect(row).toEqual(expect.arrayContaining([expect.stringMatching(/ ago$/), expect.stringMatching(/^\d+ (KiB|MiB)$/)]))
    await job.verify()
  })

  test('--output json and yaml say the same, -q gives ids, --output name too', async () => {
    const job = await world.job('counter')
    const json = JSON.parse((await world.ok(['ps', '--output', 'json'])).stdout) as Record<string, unknown>[]
    const entry = json.find(({ jid }) => jid === job.jid)
    expect(entry).toMatchObject({ jid: job.jid, type: 'process', pid: job.pid, is_running: true })
    const { parse } = await import('yaml')
    const yaml = parse((await world.ok(['ps', '--output', 'yaml'])).stdout) as Record<string, unknown>[]
    // Sorted by status, which may change between two looks.
    expect(yaml.map(({ jid }) => jid).sort()).toEqual(json.map(({ jid }) => jid).sort())
    expect((await world.ok(['ps', '-q'])).stdout.split('\n')).toContain(job.jid)
    await world.ok(['job', 'kill', job.jid])
  })
})

describe('job inspect', () => {
  test('YAML by default with the keys of the reference; state has the process tree', async () => {
    const job = await world.job('tree')
    const { stdout } = await world.ok(['job', 'inspect', job.jid])
    const { parse } = await import('yaml')
    const view = parse(stdout) as Record<string, unknown>
    expect(view).toMatchObject({ jid: job.jid, type: 'process', log: job.log })
    expect(view.state).toBeTypeOf('object')
    expect(view.details).toBeTypeOf('object')
    expect(JSON.stringify(view.state)).toContain(String(job.pid))
    await job.verify()
  })

  test('an unknown job: [must] `NotFound: job X not found`', async () => {
    expect((await world.fails(['job', 'inspect', 'nobody'])).stderr).toContain('NotFound: job nobody not found')
  })
})

describe('job kill', () => {
  test('SIGKILL by default, to the whole group; `Killed job X`', async () => {
    const job = await world.job('/bin/sh', ['-c', 'trap "" TERM; sleep 1000 & echo $!; wait'])
    await job.says(/^\d+$/m)
    const child = Number(/\d+/.exec(job.output())?.[0])
    const { stdout } = await world.ok(['job', 'kill', job.jid])
    expect(stdout).toBe(`Killed job ${job.jid}\n`)
    await until('both are gone', () => !isAlive(job.pid) && !isAlive(child))
    await end(job.jid)
    expect((await world.inspect(job.jid)).exit).toEqual({ signal: 9 })
  })

  test('--signal by name and number (J5)', async () => {
    for (const signal of ['TERM', 'SIGTERM', '15']) {
      const job = await world.job('/bin/sh', ['-c', 'trap "echo terminated; exit 3" TERM; echo up; while :; do sleep 0.01; done'])
      await job.says('up')
      await world.ok(['kill', '--signal', signal, job.jid])
      await job.says('terminated')
      await end(job.jid)
      expect((await world.inspect(job.jid)).exit).toEqual({ code: 3 })
    }
  })

  test('--grace: TERM, then KILL when it does not end', async () => {
    const job = await world.job('/bin/sh', ['-c', 'trap "echo ignored" TERM; echo up; while :; do sleep 0.01; done'])
    await job.says('up')
    await world.ok(['kill', '--signal', 'TERM', '--grace', '2s', job.jid])
    expect(isAlive(job.pid)).toBe(false)
    expect(job.output()).toContain('ignored')
  })

  test('several at once; nothing is said of those that have ended', async () => {
    const jobs = await Promise.all([1, 2, 3].map(() => world.job('counter')))
    await world.ok(['job', 'kill', jobs[0]?.jid ?? ''])
    await end(jobs[0]?.jid ?? '')
    const { stdout } = await world.ok(['job', 'kill', ...jobs.map(({ jid }) => jid)])
    expect(stdout.trim().split('\n').sort()).toEqual(
      jobs
        .slice(1)
        .map(({ jid }) => `Killed job ${jid}`)
        .sort(),
    )
  })

  test('none matched: `NotFound: no jobs found`', async () => {
    expect((await world.fails(['job', 'kill', 'nobody'])).stderr).toContain('NotFound: no jobs found')
    expect((await world.fails(['job', 'delete', 'nobody'])).stderr).toContain('NotFound: no jobs found')
  })

  test('no JID: says what to give', async () => {
    expect((await world.fails(['job', 'kill'])).stderr).toContain('Please provide at least one JID or use the --all flag')
    expect((await world.fails(['job', 'delete'])).stderr).toContain('Please provide a job ID or use the --all flag')
  })

  test('--all asks at a terminal; no and nothing do nothing, other words are asked again, yes kills', async () => {
    const job = await world.job('counter')
    for (const answers of ['n\n', 'no\n', '\n', '\x04', 'what\nn\n']) {
      const terminal = world.terminal(['job', 'kill', '--all'])
      await terminal.says('Are you sure you want to kill all jobs? [y/n]: ')
      terminal.type(answers)
      expect((await terminal.exit).code).toBe(0)
      expect(isAlive(job.pid)).toBe(true)
    }
    const terminal = world.terminal(['job', 'kill', '--all'])
    await terminal.says('[y/n]')
    terminal.type('what\nyes\n')
    await terminal.says(`Killed job ${job.jid}`)
    expect((await terminal.exit).code).toBe(0)
    await until('it is gone', () => !isAlive(job.pid))
  })

  test('--all where nobody can be asked does nothing without --yes', async () => {
    const job = await world.job('counter')
    expect((await world.fails(['job', 'kill', '--all'], { stdin: 'y\n' })).stderr).toContain('--yes')
    expect(isAlive(job.pid)).toBe(true)
    expect((await world.ok(['job', 'kill', '--all', '--yes'])).stdout).toContain(`Killed job ${job.jid}`)
  })
})

describe('a job that is named by less than its id', () => {
  test('the beginning of a random id, or --latest, in every verb; a name of its own counts whole', async () => {
    const random = async (jid: string) =>
      world.quick(['exec', '--jid', jid, '--out', join(world.dir, `${jid}.log`), '--', await program('counter')])
    await random('brave_hopper7')
    await random('brave_hertz1')
    const named = await world.job('counter')
    expect((await world.quick(['job', 'inspect', 'brave_ho', '-q'])).stdout).toBe('brave_hopper7\n')
    expect((await world.refuses(['dump', 'job', 'brave'])).stderr).toMatch(/brave fits several jobs: .*brave_hertz1/)
    expect((await world.refuses(['kill', named.jid.slice(0, -1)])).stderr).toContain('no jobs found')
    expect((await world.quick(['freeze', 'job', '--latest'])).stdout).toContain(`PID ${named.pid}`)
    await world.quick(['unfreeze', 'job', '--latest'])
    await world.quick(['dump', 'job', 'brave_ho'])
    expect((await world.quick(['checkpoints', 'brave_ho', '-ql'])).stdout).toMatch(/^\S+\n$/)
    await world.quick(['checkpoint', 'verify', '--latest'])
    await world.quick(['restore', 'job', 'brave_ho'])
    expect((await world.quick(['kill', 'brave_ho', 'brave_he'])).stdout).toBe('Killed job brave_hopper7\nKilled job brave_hertz1\n')
    expect((await world.quick(['kill', '-l'])).stdout).toBe(`Killed job ${named.jid}\n`)
    await world.quick(['delete', 'brave_ho', 'brave_he', named.jid])
  })
})

describe('job delete', () => {
  test('[must] `Deleted job X`, and it is gone; checkpoint and log stay on disk', async () => {
    const job = await world.job('counter')
    const path = await world.dump(job)
    expect((await world.ok(['job', 'delete', job.jid])).stdout).toContain(`Deleted job ${job.jid}`)
    expect(await world.row(job.jid)).toBeUndefined()
    expect(readFileSync(job.log, 'utf8')).toContain('1\n')
    await world.quick(['checkpoint', 'verify', path])
    expect((await world.ok(['checkpoints', job.jid])).stdout).toContain(`No checkpoints found for job ${job.jid}`)
  })

  test('a running job: `Job X is running, please kill it first`, exit 0, and it stays', async () => {
    const job = await world.job('counter')
    const { stdout } = await world.ok(['delete', job.jid])
    expect(stdout).toContain(`Job ${job.jid} is running, please kill it first`)
    expect((await world.row(job.jid))?.[2]).toBe(String(job.pid))
    await world.ok(['kill', job.jid])
    await end(job.jid)
    await world.ok(['delete', job.jid])
  })
})

describe('job logs', () => {
  test('what the job has written, also after its end; an attachable job has no log and is said so', async () => {
    const job = await world.job('/bin/sh', ['-c', 'echo one; echo two >&2'])
    await job.says('two')
    expect((await world.ok(['job', 'logs', job.jid])).stdout).toBe('one\ntwo\n')
    const attachable = await world.job('counter', [], { flags: ['--attachable'] })
    expect((await world.fails(['job', 'logs', attachable.jid])).stderr).toContain('attach')
    await world.ok(['kill', attachable.jid])
  })
})

describe('manage process', () => {
  test('[must] `Managing process PID n`; it can be dumped and restored as a job', async () => {
    const started = await world.foreign('pipes')
    const jid = world.jid('managed')
    const { stdout } = await world.ok(['manage', 'process', String(started.pid), '--jid', jid])
    expect(stdout).toContain(`Managing process PID ${started.pid}\n`)
    expect((await world.row(jid))?.[2]).toBe(String(started.pid))
    await world.ok(['dump', 'job', jid])
    await world.ok(['restore', 'job', jid])
    await started.verify()
  })

  test('the exit status of a managed process is known (J6)', async () => {
    const started = await world.foreign('/bin/sh', ['-c', 'trap "exit 42" TERM; echo up; while :; do sleep 0.02; done'])
    await started.says('up')
    const jid = world.jid('managedexit')
    await world.ok(['manage', 'process', String(started.pid), '--jid', jid])
    process.kill(started.pid, 'SIGTERM')
    await end(jid)
    expect((await world.inspect(jid)).exit).toEqual({ code: 42 })
  })

  test('[must] a missing PID: `NotFound: process with PID n does not exist`, job absent', async () => {
    const jid = world.jid('missing')
    const { stderr } = await world.fails(['manage', 'process', '2000000', '--jid', jid])
    expect(stderr).toContain('NotFound: process with PID 2000000 does not exist')
    expect(await world.row(jid)).toBeUndefined()
  })

  test('[must] --upcoming is not for processes; a nanosecond number is no PID', async () => {
    await world.fails(['manage', 'process', '1', '--upcoming'])
    expect((await world.fails(['manage', 'process', '1764000000000000000'])).stderr).toMatch(/invalid pid/i)
  })

  test('PID 1, the daemon, a shim and a kernel thread are not to be jobs', async () => {
    const job = await world.job('counter')
    const isMachine = processInfo(2)?.command.includes('kthreadd') === true
    for (const pid of [1, world.daemonPid, processInfo(job.pid)?.parent ?? 0, ...(isMachine ? [2] : [])])
      expect((await world.fails(['manage', 'process', String(pid)])).stderr).toContain('cannot be a job')
  })

  test('a process that is already managed is refused, naming the job', async () => {
    const started = await world.foreign('counter')
    const jid = world.jid('first')
    await world.ok(['manage', 'process', String(started.pid), '--jid', jid])
    expect((await world.fails(['manage', 'process', String(started.pid), '--jid', world.jid('second')])).stderr).toContain(jid)
    const job = await world.job('counter')
    expect((await world.fails(['manage', 'process', String(job.pid)])).stderr).toContain(job.jid)
  })

  test('a PID that only an ended job remembers is no obstacle (J16)', async () => {
    const job = await world.job('counter')
    const path = await world.dump(job)
    await world.ok(['restore', 'process', '--path', path])
    const jid = world.jid('again')
    await world.ok(['manage', 'process', String(job.pid), '--jid', jid])
    expect((await world.row(jid))?.[2]).toBe(String(job.pid))
    process.kill(job.pid, 'SIGKILL')
  })

  test('the daemon and PID 1 are refused: they could be killed as a job', async () => {
    await world.fails(['manage', 'process', String(world.daemonPid)])
    await world.fails(['manage', 'process', '1'])
  })
})

test('what cannot be printed is no success; a reader that goes away is', async () => {
  await world.job('eventfd')
  const shell = async (line: string) => {
    const outcome = promisify(execFile)('sh', ['-c', line, 'sh', CEDANA], { env: world.env })
    return outcome.catch((failed: unknown) => failed as { readonly code: number; readonly stderr: string })
  }
  const full = { code: 1, stderr: 'Error: cannot write the output: no space left on device\n' }
  for (const format of ['table', 'json']) expect(await shell(`"$1" ps -o ${format} >/dev/full`)).toMatchObject(full)
  expect(await shell('{ "$1" ps; echo $? >&2; } | true')).toEqual({ stdout: '', stderr: '0\n' })
})

describe('query process', () => {
  test('the table of the reference, --tree, --inspect, messages; bad PIDs among good ones disturb nothing', async () => {
    const job = await world.job('tree')
    const { stdout } = await world.ok(['query', 'process', String(job.pid), '2000000', '2000001', '2000002'])
    expect(stdout.split('\n')[0]?.trim().split(/\s+/)).toEqual(['PID', 'STATUS', 'UID', 'GID', 'COMMAND'])
    expect(stdout).toMatch(new RegExp(`^${job.pid}\\s+sleep\\s+0\\s+0\\s+`, 'm'))
    expect(stdout).toContain('Found 1 process')
    expect(stdout).toContain('Use `query process <ID> --inspect` for details')
    for (const pid of [2000000, 2000001, 2000002]) expect(stdout).toContain(`PID ${pid}`)
    const tree = (await world.ok(['query', 'process', '--tree', String(job.pid)])).stdout
    expect(tree.split('\n').filter((line) => /^\d+\s/.test(line))).toHaveLength(13)
    const inspect = (await world.ok(['query', 'process', '--inspect', String(job.pid)])).stdout
    expect(inspect).toContain('pid')
    expect((await world.fails(['query', 'process', '2000000'])).stderr).toMatch(/^Error: NotFound: PID 2000000: .*\n$/)
    await job.verify()
  })

  test('--output json', async () => {
    const job = await world.job('counter')
    const found = JSON.stringify(JSON.parse((await world.ok(['query', 'process', String(job.pid), '--output', 'json'])).stdout))
    expect(found).toContain(String(job.pid))
    await world.ok(['kill', job.jid])
  })
})

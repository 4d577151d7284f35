import { describe, expect, test } from 'vitest'
import { Terminal } from '../support/conversation.js'
import { isAlive, unread } from '../support/processes.js'
import { program } from '../support/programs.js'
import { until } from '../support/wait.js'
import { CEDANA, useWorld, type Job } from '../support/world.js'

const world = useWorld()

/** A counter that can be attached to. */
const attachable = (args: readonly string[] = ['20'], flags: readonly string[] = []): Promise<Job> =>
  world.job('counter', args, { flags: ['--attachable', ...flags] })

/** Whether numbers follow each other without gap or repetition. */
function expectCount(text: string, from?: number): void {
  const numbers = text
    .split('\n')
    .filter((line) => /^\d+$/.test(line))
    .map(Number)
  expect(numbers.length).toBeGreaterThan(0)
  if (from !== undefined) expect(numbers[0]).toBe(from)
  expect(numbers).toEqual(numbers.map((_, i) => (numbers[0] ?? 0) + i))
}

describe('attach', () => {
  test('`ps` shows [Attachable] while it runs; `attach PID` and `job attach JID` both work', async () => {
    const job = await attachable()
    expect((await world.row(job.jid))?.at(-1)).toBe('[Attachable]')
    const byPid = world.talk(['attach', String(job.pid)])
    const byJid = world.talk(['job', 'attach', job.jid])
    await Promise.all([byPid.says(/^30$/m), byJid.says(/^30$/m)])
    byJid.type('quit\n')
    expect((await byPid.exit).code).toBe(0)
    expect((await byJid.exit).code).toBe(0)
    expectCount(byPid.stdout)
    expectCount(byJid.stdout)
  })

  test('a late attacher sees the last output first, from the beginning while that is short', async () => {
    const job = await attachable()
    const early = world.talk(['job', 'attach', job.jid])
    await early.says(/^10$/m)
    early.signal('SIGINT')
    await early.exit
    const talk = world.talk(['job', 'attach', job.jid])
    await talk.says(/^25$/m)
    expectCount(talk.stdout, 1)
    talk.type('quit\n')
    await talk.exit
  })

  test('[must] process output (stdout→stdout, stderr→stderr); exit = code of the process', async () => {
    const job = await attachable()
    const talk = world.talk(['job', 'attach', job.jid])
    await talk.says(/^21$/m)
    talk.type('exit 42\n')
    expect((await talk.exit).code).toBe(42)
    expect(talk.stderr).toContain('!10\n!20\n')
    expect(talk.stdout).not.toContain('!')
  })

  test('Ctrl-C detaches: the job goes on and can be attached again', async () => {
    const job = await attachable()
    const talk = world.talk(['job', 'attach', job.jid])
    await talk.says(/^5$/m)
    talk.signal('SIGINT')
    expect((await talk.exit).code).toBe(130)
    expect(talk.stderr).toContain('Detached')
    expect(isAlive(job.pid)).toBe(true)
    const again = world.talk(['job', 'attach', job.jid])
    again.type('exit 3\n')
    expect((await again.exit).code).toBe(3)
  })

  test('the end of standard input passes to the job', async () => {
    const job = await attachable()
    const talk = world.talk(['job', 'attach', job.jid])
    talk.type('hello\nhalf')
    await talk.says('got hello')
    talk.endInput()
    await talk.says('end of input')
    expect(isAlive(job.pid)).toBe(true)
    await world.quick(['job', 'kill', job.jid])
    expect((await talk.exit).code).toBe(137)
  })

  test('several attachers at once all get everything; one that ends or never reads disturbs nobody', async () => {
    const job = await attachable(['1'])
    const stuck = world.talk(['job', 'attach', job.jid])
    await stuck.says(/^\d+$/m)
    stuck.signal('SIGSTOP')
    const [first, second, third] = [1, 2, 3].map(() => world.talk(['job', 'attach', job.jid]))
    await first?.says(/^\d{3}$/m)
    first?.signal('SIGKILL')
    await second?.says(/^1000$/m, 20_000)
    third?.type('exit 5\n')
    expect((await third?.exit)?.code).toBe(5)
    expect((await second?.exit)?.code).toBe(5)
    expectCount(second?.stdout ?? '')
    stuck.signal('SIGCONT')
    expect((await stuck.exit).code).toBe(5)
  })

  test('a grandchild that keeps the output open does not hold the attacher when the process has ended', async () => {
    const outcome = await world.cedana(
      ['exec', '--attach', '--jid', world.jid('orphan'), '--', 'sh', '-c', '(sleep 30 &) ; echo bye; exit 4'],
      { timeoutMs: 15_000 },
    )
    expect(outcome).toMatchObject({ code: 4, stdout: 'bye\n' })
  })

  test('a job with a log cannot be attached to, and is said so', async () => {
    const job = await world.job('counter')
    const { stderr } = await world.fails(['job', 'attach', job.jid])
    expect(stderr).toContain('NotFound')
    expect(isAlive(job.pid)).toBe(true)
  })

  test('a process that is no job: `NotFound: process N has no IO slave`', async () => {
    const { stderr } = await world.fails(['attach', String(process.pid)])
    expect(stderr).toContain('NotFound')
    expect(stderr).toContain(String(process.pid))
  })

  test('an attacher survives kill -9 of the daemon only as an error, the job without one', async () => {
    const job = await attachable(['10'])
    const talk = world.talk(['job', 'attach', job.jid])
    await talk.says(/^5$/m)
    await world.killDaemon()
    expect((await talk.exit).code).not.toBe(0)
    await world.startDaemon()
    const again = world.talk(['job', 'attach', job.jid])
    again.type('exit 9\n')
    expect((await again.exit).code).toBe(9)
    expectCount(again.stdout, 1)
  })
})

describe('attach across a checkpoint', () => {
  test('restore --attachable: output, input and error output go on after the restore', async () => {
    const job = await attachable()
    const talk = world.talk(['job', 'attach', job.jid])
    await talk.says(/^10$/m)
    await world.dump(job)
    await talk.exit
    await world.ok(['restore', 'job', job.jid, '--attachable'])
    const again = world.talk(['job', 'attach', job.jid])
    again.type('still there\n')
    await again.says('got still there')
    again.type('exit 6\n')
    expect((await again.exit).code).toBe(6)
    const before = talk.stdout
      .split('\n')
      .filter((line) => /^\d+$/.test(line))
      .map(Number)
    const after = again.stdout
      .split('\n')
      .filter((line) => /^\d+$/.test(line))
      .map(Number)
    expect(after[0]).toBeLessThanOrEqual((before.at(-1) ?? 0) + 1)
    expectCount(again.stdout)
  })

  test('input that the job had not read yet at the dump is read after the restore', async () => {
    // A program that reads nothing until it is told to.
    const job = await world.job('/bin/sh', ['-c', 'trap "cat; exit 7" USR1; echo up; while :; do sleep 0.05; done'], {
      flags: ['--attachable'],
    })
    const talk = world.talk(['job', 'attach', job.jid])
    await talk.says('up')
    talk.type('unread input\n')
    await unread(job.pid)
    await world.dump(job)
    await world.ok(['restore', 'job', job.jid, '--attachable'])
    const again = world.talk(['job', 'attach', job.jid])
    again.endInput()
    process.kill(job.pid, 'SIGUSR1')
    expect((await again.exit).code).toBe(7)
    expect(again.stdout).toContain('unread input')
  })

  test('[must] restore --attach: output of the process, exit = its code', async () => {
    const job = await attachable()
    await world.dump(job)
    const talk = world.talk(['restore', 'job', job.jid, '--attach'])
    await talk.says(/^\d+$/m) // it ends at once when its next number is not yet due
    talk.type('exit 42\n')
    expect((await talk.exit).code).toBe(42)
    expectCount(talk.stdout)
  })

  test('[must] attached to non-attached: the rest of the output goes to the default log', async () => {
    const job = await world.job('/bin/sh', ['-c', 'trap "echo ends with 5; exit 5" TERM; echo up; while :; do sleep 0.02; done'], {
      flags: ['--attachable'],
    })
    await world.dump(job)
    await world.ok(['restore', 'job', job.jid])
    process.kill(job.pid, 'SIGTERM')
    await job.says('ends with 5')
  })

  test('a job with a log becomes attachable by restore --attachable', async () => {
    const job = await world.job('counter', ['20'])
    await job.says('5')
    await world.dump(job)
    await world.ok(['restore', 'job', job.jid, '--attachable'])
    const talk = world.talk(['job', 'attach', job.jid])
    await talk.says(/^\d+$/m)
    await world.quick(['job', 'kill', job.jid])
    expect((await talk.exit).code).toBe(137)
  })

  test('the attacher of a job that is dumped is told so, with a code of its own', async () => {
    const job = await attachable()
    const talk = world.talk(['job', 'attach', job.jid])
    await talk.says(/^5$/m)
    await world.dump(job)
    const { code } = await talk.exit
    expect(code).toBe(75)
    expect(talk.stderr).toMatch(/dumped/)
  })
})

describe('run --tty', () => {
  test('the job has a terminal of the size of the caller, which follows when that changes', async () => {
    const jid = world.jid('tty')
    const terminal = world.terminal(['run', 'process', '--tty', '--attach', '--jid', jid, '--', await program('tty')], {
      rows: 31,
      columns: 97,
    })
    await terminal.says('READY')
    terminal.type('size\n')
    await terminal.says('size 31 97')
    terminal.resize(40, 120)
    await until('the job saw SIGWINCH', async () => {
      terminal.type('resized\n')
      await terminal.says(/resized \d/)
      return /resized 1/.test(terminal.stdout)
    })
    terminal.type('size\n')
    await terminal.says('size 40 120')
    terminal.type('check\nquit\n')
    await terminal.says('PASS')
    expect((await terminal.exit).code).toBe(0)
  })

  test('a terminal survives dump and restore: mode, size, controlling terminal', async () => {
    const jid = world.jid('ttyrestore')
    const terminal = world.terminal(['run', 'process', '--tty', '--attach', '--jid', jid, '--', await program('tty')], {
      rows: 30,
      columns: 90,
    })
    await terminal.says('READY')
    await world.ok(['dump', 'job', jid])
    await terminal.exit
    const again = world.terminal(['restore', 'job', jid, '--attach'], { rows: 20, columns: 70 })
    again.type('check\n')
    await again.says('checked')
    again.type('size\n')
    await again.says(/size \d+ \d+/)
    again.type('quit\n')
    await again.says('PASS')
    expect((await again.exit).code).toBe(0)
  })

  test('a shell with job control, which has /dev/tty open, survives dump and restore', async () => {
    const jid = world.jid('dash')
    const terminal = world.terminal(['run', 'process', '--tty', '--attach', '--jid', jid, '--', 'dash', '-i'])
    terminal.type('dash -i\n')
    terminal.type('value=7; sleep 600 & ls -l /proc/$$/fd; echo is-$((value + 1))\n')
    await terminal.says('is-8')
    expect(terminal.stdout).toContain('/dev/tty')
    for (const round of [1, 2]) {
      await world.ok(['dump', 'job', jid])
      const again = world.terminal(['restore', 'job', jid, '--attach'])
      again.type(`echo again-$((value + ${round})); jobs\n`)
      await again.says(`again-${7 + round}`)
      await again.says('Running')
      // The shell hands the terminal to what it runs in the foreground, by its /dev/tty.
      again.type('sleep 600\n\x03\necho back-$((value * 2))\n')
      await again.says('back-14')
      again.type('\x10\x11')
      expect((await again.exit).code).toBe(130)
    }
    await world.quick(['job', 'kill', jid])
  })

  test('every key is the job’s, Ctrl-C too; ctrl-p ctrl-q detaches, and the job goes on', async () => {
    const jid = world.jid('ttykeys')
    const script = 'trap "echo interrupted; exit 8" INT; echo up; while :; do sleep 0.02; done'
    const terminal = world.terminal(['run', 'process', '--tty', '--attach', '--jid', jid, '--', 'sh', '-c', script])
    await terminal.says('up')
    terminal.type('\x10\x11')
    expect((await terminal.exit).code).toBe(130)
    expect(terminal.stdout).toContain('Detached')
    expect(await world.inspect(jid)).toMatchObject({ is_running: true, tty: true })
    const again = world.terminal(['job', 'attach', jid])
    await again.says('up')
    again.type('\x03')
    expect((await again.exit).code).toBe(8)
    expect(again.stdout).toContain('interrupted')
  })

  test('what the job writes arrives as it left its terminal', async () => {
    const jid = world.jid('ttylines')
    const script = 'read go; echo one; stty -opost; printf "two\\nthree\\r\\n"'
    const terminal = world.terminal(['run', 'process', '--tty', '--attach', '--jid', jid, '--', 'sh', '-c', `echo up; ${script}`])
    await terminal.says('up')
    terminal.type('\n')
    expect((await terminal.exit).code).toBe(0)
    expect(terminal.stdout).toContain('one\r\ntwo\nthree\r\n')
  })

  test('the terminal of the caller is in its old mode afterwards', async () => {
    const jid = world.jid('sane')
    const script = `stty -g; ${CEDANA} exec --tty --attach --jid ${jid} -- true; echo "code $?"; stty -g`
    const shell = new Terminal(['sh', '-c', script], { env: world.env, cwd: world.work() })
    expect((await shell.exit).code).toBe(0)
    const modes = shell.stdout.split(/\r?\n/).filter((line) => /^[0-9a-f]+(:[0-9a-f]+)+$/.test(line))
    expect(shell.stdout).toContain('code 0')
    expect(modes).toHaveLength(2)
    expect(modes[1]).toBe(modes[0])
  })
})

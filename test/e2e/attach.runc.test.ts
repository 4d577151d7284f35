/** What a user sees of a container whose streams the shim holds: attached, late, in a terminal, across a checkpoint and across daemons. */
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { useContainers, type BundleOptions } from '../support/containers.js'
import { unread } from '../support/processes.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const world = useWorld()
const containers = useContainers(world)

/** Counts, says what it is told, and ends as it is told. */
const TALKS = `i=0; while :; do i=$((i+1)); echo $i; [ $((i % 10)) = 0 ] && echo !$i >&2; usleep 20000; done & c=$!
while read -r a b; do [ "$a" = exit ] && { kill $c; exit $b; }; echo "got $a"; done; echo end of input; wait`
/** In a terminal: the size at the start and whenever it changes; Ctrl-C is told, and a line. */
const TERMINAL = `trap 'echo "size $(stty size)"' WINCH; trap 'echo interrupted' INT; echo "size $(stty size)"
while :; do read -r a b && { [ "$a" = exit ] && exit $b; echo "got $a"; }; done`

interface Job {
  readonly id: string
  readonly jid: string
  /** `run runc …`, without how to be attached. */
  readonly run: readonly string[]
}
function job(word: string, script: string, options: BundleOptions = {}): Job {
  const id = containers.id(word)
  const jid = world.jid(word)
  const bundle = containers.bundle(id, { args: ['sh', '-c', script], ...options })
  return { id, jid, run: ['run', 'runc', id, '--jid', jid, '--bundle', bundle, '--root', containers.root] }
}

const count = (text: string): number[] =>
  text
    .split(/\r?\n/)
    .filter((line) => /^\d+$/.test(line))
    .map(Number)
/** Numbers that follow each other without gap or repetition. */
function expectCount(text: string, from?: number): void {
  const numbers = count(text)
  expect(numbers.length).toBeGreaterThan(0)
  if (from !== undefined) expect(numbers[0]).toBe(from)
  expect(numbers).toEqual(numbers.map((_, index) => (numbers[0] ?? 0) + index))
}
const pidOf = async ({ jid }: Job): Promise<number> => Number((await world.inspect(jid))['pid'])
const gone = (id: string): Promise<boolean> => until(`${id} is gone from the runtime`, () => !containers.known().includes(id))

describe('run runc --attach', () => {
  test('output and error output apart, input, the exit code, and the container gone afterwards', async () => {
    const one = job('attach', TALKS)
    const talk = world.talk([...one.run, '--attach'])
    await talk.says(/^15$/m)
    talk.type('hello\n')
    await talk.says('got hello')
    talk.type('exit 42\n')
    expect((await talk.exit).code).toBe(42)
    expectCount(talk.stdout, 1)
    expect(talk.stderr).toContain('!10\n')
    expect(talk.stdout).not.toContain('!')
    await gone(one.id)
  })

  test('the end of input passes into the container; a signal that ends it is 128 and its number', async () => {
    const one = job('eof', TALKS)
    const talk = world.talk([...one.run, '--attach'])
    talk.type('half')
    talk.endInput()
    await talk.says('end of input')
    expect(talk.stdout).not.toContain('got half') // `read` fails at a line that is not whole
    await world.quick(['kill', one.jid])
    expect((await talk.exit).code).toBe(137)
    await gone(one.id)
  })

  test('nothing is lost of a container that writes a lot and ends at once', async () => {
    const one = job('lots', 'seq 1 30000; exit 3')
    const { code, stdout } = await world.cedana([...one.run, '--attach'])
    expect(code).toBe(3)
    expect(count(stdout).length).toBe(30_000)
    expectCount(stdout, 1)
  })

  test('Ctrl-C detaches; a late attacher sees the last output first; two at once see the same', async () => {
    const one = job('late', TALKS)
    const talk = world.talk([...one.run, '--attach'])
    await talk.says(/^5$/m)
    talk.signal('SIGINT')
    expect((await talk.exit).code).toBe(130)
    expect(talk.stderr).toContain('Detached')
    const [first, second] = [1, 2].map(() => world.talk(['job', 'attach', one.jid]))
    await first?.says(/^20$/m)
    second?.type('exit 6\n')
    expect((await first?.exit)?.code).toBe(6)
    expect((await second?.exit)?.code).toBe(6)
    expectCount(first?.stdout ?? '', 1)
    expectCount(second?.stdout ?? '', 1)
    await gone(one.id)
  })

  test('a program that is not in the container: the reason, an exit code, no job, nothing left', async () => {
    const one = job('typo', 'true', { args: ['no-such-program'] })
    for (const how of ['--attach', '--attachable', '--tty']) {
      const { stderr } = await world.fails([...one.run, how])
      expect(stderr).toMatch(/no-such-program.*not found/)
      expect(await world.row(one.jid)).toBeUndefined()
      expect(containers.known()).toEqual([])
      expect(existsSync(join(world.runDir, 'jobs', one.jid))).toBe(false)
    }
  })
})

describe('run runc --tty', () => {
  test('a terminal of the size of the caller from the first moment, which follows', async () => {
    const one = job('size', TERMINAL)
    const terminal = world.terminal([...one.run, '--tty', '--attach'], { rows: 31, columns: 97 })
    await terminal.says(/size [^\n]*\n/)
    expect(terminal.stdout).toMatch(/^size 31 97\r/)
    terminal.resize(40, 120)
    await terminal.says('size 40 120')
    terminal.type('hello\r')
    await terminal.says('got hello')
    expect(terminal.stdout).toMatch(/^hello\r+\ngot hello/m) // the container's terminal echoes
    terminal.type('exit 9\r')
    expect((await terminal.exit).code).toBe(9)
    await gone(one.id)
  })

  test('Ctrl-C is the container’s; ctrl-p ctrl-q detaches; a late attacher has the last output and its own size', async () => {
    const one = job('keys', TERMINAL)
    const terminal = world.terminal([...one.run, '--tty', '--attach'], { rows: 24, columns: 80 })
    await terminal.says('size 24 80')
    terminal.type('\x03')
    await terminal.says('interrupted')
    terminal.type('\x10\x11')
    expect((await terminal.exit).code).toBe(130)
    expect(await world.inspect(one.jid)).toMatchObject({ is_running: true, tty: true })
    const late = world.terminal(['job', 'attach', one.jid], { rows: 50, columns: 132 })
    await late.says('interrupted')
    await late.says('size 50 132')
    late.type('\x04exit 8\r')
    expect((await late.exit).code).toBe(8)
    await gone(one.id)
  })
})

test('Ctrl-C while the runtime still makes the container ends that at once, and leaves nothing', async () => {
  const reached = join(world.work(), 'reached')
  const one = job('given-up', TALKS, {
    change: (spec) => {
      spec['hooks'] = { prestart: [{ path: '/bin/sh', args: ['sh', '-c', `echo $$ > ${reached}; exec sleep 60`] }] }
    },
  })
  const talk = world.talk([...one.run, '--attach'])
  await until('the hook runs', () => existsSync(reached))
  talk.signal('SIGINT')
  expect((await talk.exit).code).not.toBe(0)
  await until('the job is gone', async () => (await world.row(one.jid)) === undefined)
  expect(containers.known()).not.toContain(one.id) // nor is there a cgroup or a process: judged at the end
  expect(existsSync(join(world.runDir, 'jobs', one.jid))).toBe(false)
})

describe('across a checkpoint', () => {
  test('--attachable: output, input and error output go on; input that was not read is not lost', async () => {
    const one = job('restored', TALKS)
    const talk = world.talk([...one.run, '--attach'])
    await talk.says(/^10$/m)
    await world.ok(['dump', 'job', one.jid])
    expect((await talk.exit).code).toBe(75)
    await world.ok(['restore', 'job', one.jid, '--attachable'])
    const again = world.talk(['job', 'attach', one.jid])
    again.type('still\n')
    await again.says('got still')
    await until('its error output goes on', () => /^!\d+$/m.test(again.stderr))
    again.type('exit 6\n')
    expect((await again.exit).code).toBe(6)
    expectCount(again.stdout)
    expect(count(again.stdout)[0]).toBeLessThanOrEqual((count(talk.stdout).at(-1) ?? 0) + 1)
    await gone(one.id)
  })

  test('input that the container had not read at the dump is read after the restore', async () => {
    const one = job('unread', 'trap "cat; exit 7" USR1; echo up; while :; do usleep 20000; done')
    const talk = world.talk([...one.run, '--attach'])
    await talk.says('up')
    talk.type('unread input\n')
    await unread(await pidOf(one))
    await world.ok(['dump', 'job', one.jid])
    await world.ok(['restore', 'job', one.jid, '--attachable'])
    const again = world.talk(['job', 'attach', one.jid])
    again.endInput()
    await containers.ok('kill', one.id, 'USR1')
    expect((await again.exit).code).toBe(7)
    expect(again.stdout).toContain('unread input')
  })

  test('a terminal: its new size reaches the container, its keys too', async () => {
    const one = job('ttyrestored', TERMINAL)
    const terminal = world.terminal([...one.run, '--tty', '--attach'], { rows: 31, columns: 97 })
    await terminal.says('size 31 97')
    await world.ok(['dump', 'job', one.jid])
    expect((await terminal.exit).code).toBe(75)
    const again = world.terminal(['restore', 'job', one.jid, '--attach'], { rows: 20, columns: 70 })
    await again.says('size 20 70')
    again.type('\x03')
    await again.says('interrupted')
    again.resize(25, 75)
    await again.says('size 25 75')
    again.type('exit 4\r')
    expect((await again.exit).code).toBe(4)
    await gone(one.id)
  })
})

describe('the daemon is killed', () => {
  test('while attached: the container goes on, with its terminal, its output and its exit code', async () => {
    const one = job('killed', TERMINAL)
    const terminal = world.terminal([...one.run, '--tty', '--attach'])
    await terminal.says('size 24 80')
    await world.killDaemon()
    expect((await terminal.exit).code).not.toBe(0)
    await world.startDaemon()
    const again = world.terminal(['job', 'attach', one.jid])
    await again.says('size 24 80')
    again.type('hello\rexit 9\r')
    expect((await again.exit).code).toBe(9)
    expect(again.stdout).toContain('got hello')
    await gone(one.id)
  })

  test('while the runtime still makes the container: the next daemon has the job, and not one that failed', async () => {
    for (const [word, end] of [
      ['goes', ''],
      ['fails', 'exit 1'],
    ] as const) {
      const go = join(world.work(), 'go')
      const one = job(word, TALKS, {
        change: (spec) => {
          const wait = `echo >> ${go}.there; until [ -e ${go} ]; do sleep 0.05; done; ${end}`
          spec['hooks'] = { prestart: [{ path: '/bin/sh', args: ['sh', '-c', wait] }] }
        },
      })
      const talk = world.talk([...one.run, '--attachable'])
      await until('the hook runs', () => existsSync(`${go}.there`))
      await world.killDaemon()
      await talk.exit
      const started = world.startDaemon()
      await sleep(1000)
      writeFileSync(go, '')
      await started
      if (end === '') {
        await until('it runs', async () => (await world.inspect(one.jid))['is_running'] === true)
        const again = world.talk(['job', 'attach', one.jid])
        again.type('exit 7\n')
        expect((await again.exit).code).toBe(7)
        expectCount(again.stdout, 1)
      } else {
        await until('it is no job', async () => (await world.row(one.jid)) === undefined)
      }
      await gone(one.id)
      await until('its directory is gone', () => !existsSync(join(world.runDir, 'jobs', one.jid)))
    }
  })
})

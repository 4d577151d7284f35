/** Real programs across dump and restore; the state is looked at, not only whether they live. */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { Agent, get } from 'node:http'
import { createConnection, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { isAlive, tree } from '../support/processes.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const world = useWorld()
const PROGRAMS = join(import.meta.dirname, '..', 'programs')
const PYTHON = '/usr/bin/python3'

/** An address that nobody else listens at: a port that is free there stays free. */
const HOST = `127.${1 + (process.pid & 127)}.${(process.pid >> 7) & 255}.1`
async function freePort(): Promise<number> {
  const probe = createServer().listen(0, HOST)
  await once(probe, 'listening')
  const { port } = probe.address() as { port: number }
  probe.close()
  await once(probe, 'close')
  return port
}

test.each(['none', 'zstd'])('python with threads and 32 MiB of arrays, compression %s', async (compression) => {
  const job = await world.job(PYTHON, [join(PROGRAMS, 'arrays.py')])
  await job.says('READY')
  await world.dump(job, ['--leave-running'])
  await world.dump(job, ['--compression', compression])
  await world.quick(['restore', 'job', job.jid])
  expect(tree(job.pid)).toHaveLength(5)
  await job.verify()
})

/** One connection to redis; answers come in the order of the questions. */
class Redis {
  #text = ''
  private constructor(readonly socket: Socket) {
    socket.setEncoding('utf8').on('data', (text: string) => (this.#text += text))
  }

  static async open(port: number): Promise<Redis> {
    const socket = await until('redis listens', async () => {
      const attempt = createConnection(port, HOST)
      const outcome = await Promise.race([
        once(attempt, 'connect').then(
          () => attempt,
          () => undefined,
        ),
      ])
      return outcome
    })
    return new Redis(socket)
  }

  /** Answer to a command whose answer is one line (`+OK`, `:3`) or one string. */
  async ask(...words: string[]): Promise<string> {
    this.#text = ''
    this.socket.write(`*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join('')}`)
    const answer = await until(
      `redis answers ${words.join(' ')}`,
      () => (this.#text.startsWith('$') ? /^\$\d+\r\n([^]*)\r\n$/ : /^[+:-](.*)\r\n$/).exec(this.#text),
      20_000,
    )
    return answer[1] ?? ''
  }
}

test('redis-server with data and a connected client, which goes on with the same connection', async () => {
  const port = await freePort()
  const job = await world.job('/usr/bin/redis-server', [
    '--port',
    String(port),
    '--bind',
    HOST,
    '--save',
    '',
    '--appendonly',
    'no',
    '--daemonize',
    'no',
  ])
  const client = await Redis.open(port)
  for (let i = 0; i < 200; i++) await client.ask('SET', `key:${i}`, `value ${i * i}`)
  expect(await client.ask('INCR', 'counter')).toBe('1')
  await client.ask('SET', 'big', 'x'.repeat(500_000))
  await client.ask('MULTI') // a state of this very connection

  await world.dump(job, ['--tcp-established'])
  expect(isAlive(job.pid)).toBe(false)
  await world.quick(['restore', 'job', job.jid, '--tcp-established'])

  expect(await client.ask('INCR', 'counter')).toBe('QUEUED')
  client.socket.write('*1\r\n$7\r\nDISCARD\r\n')
  const other = await Redis.open(port)
  expect(await other.ask('DBSIZE')).toBe('202')
  expect(await other.ask('GET', 'key:123')).toBe(`value ${123 * 123}`)
  expect((await other.ask('GET', 'big')).length).toBe(500_000)
  expect(await other.ask('INCR', 'counter')).toBe('2')
  for (const redis of [client, other]) redis.socket.destroy()
  await world.quick(['kill', '--signal', 'TERM', '--grace', '5s', job.jid])
  expect((await world.inspect(job.jid)).exit).toEqual({ code: 0 })
}, 60_000)

test('a pipeline of shell loop, awk and sqlite3 with short-lived children: every row once, dumped three times on the way', async () => {
  const cwd = world.work()
  // Nobody else may open the database meanwhile: between dump and restore it would take an unfinished transaction back.
  const script = `
    i=1
    while [ $i -le 300 ]; do echo $i; echo $i > progress; i=$((i + 1)); sleep 0.005; done |
      awk '{ printf "insert into t values (%d, %d);\\n", $1, $1 * $1; fflush() }' |
      sqlite3 rows.db
    sqlite3 rows.db 'select count(*), count(distinct n), sum(n), sum(square) from t'
    echo finished`
  execFileSync('sqlite3', ['rows.db', 'pragma journal_mode = delete; create table t (n integer, square integer)'], { cwd })
  const progress = () => Number(existsSync(join(cwd, 'progress')) ? readFileSync(join(cwd, 'progress'), 'utf8') : 0)
  const job = await world.job('/bin/sh', ['-c', script], { cwd })
  for (const row of [40, 120, 200]) {
    await until(`row ${row}`, () => progress() >= row, 20_000)
    await world.dump(job, ['--file-locks'])
    await world.quick(['restore', 'job', job.jid, '--file-locks'])
  }
  await job.says('finished', 30_000)
  expect(job.output()).toContain(`300|300|${(300 * 301) / 2}|${(300 * 301 * 601) / 6}\n`)
}, 60_000)

interface Answer {
  readonly visits: Readonly<Record<string, number>>
  readonly ticks: number
  readonly worker: number
  readonly shouted: string
}

test('node with an http server, a worker thread and timers; a kept-alive connection goes on', async () => {
  const cwd = world.work()
  const job = await world.job(process.execPath, [join(PROGRAMS, 'server.mjs')], { cwd })
  await job.says('READY', 20_000)
  const port = Number(readFileSync(join(cwd, 'port'), 'utf8'))
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const connections = new Set<number>()
  const visit = (path: string) =>
    new Promise<Answer>((resolve, reject) => {
      get({ port, host: '127.0.0.1', path, agent }, (response) => {
        connections.add(response.socket.localPort ?? 0)
        let text = ''
        response.setEncoding('utf8').on('data', (piece: string) => (text += piece))
        response.on('end', () => resolve(JSON.parse(text) as Answer))
      }).on('error', reject)
    })
  await visit('/a')
  const before = await visit('/b')
  expect(before).toMatchObject({ visits: { '/a': 1, '/b': 1 }, shouted: '/B' })

  await world.dump(job, ['--tcp-established'])
  await world.quick(['restore', 'job', job.jid, '--tcp-established'])

  const after = await visit('/a')
  expect(after).toMatchObject({ visits: { '/a': 2, '/b': 1 }, shouted: '/A' })
  expect(after.ticks).toBeGreaterThanOrEqual(before.ticks)
  expect(after.worker).toBeGreaterThanOrEqual(before.worker)
  await until('timers and worker go on', async () => {
    const now = await visit('/c')
    return now.ticks > after.ticks && now.worker > after.worker
  })
  expect(connections.size).toBe(1)
  agent.destroy()
  await world.quick(['kill', job.jid])
}, 60_000)

test('vim under a terminal: an unsaved buffer, its cursor and its undo history', async () => {
  const file = join(world.work(), 'text')
  writeFileSync(file, 'first line\n')
  const jid = world.jid('vim')
  const terminal = world.terminal(
    ['run', 'process', '--tty', '--attach', '--jid', jid, '--', 'vim', '-u', 'NONE', '-i', 'NONE', '-n', '-N', file],
    { env: { TERM: 'xterm' } },
  )
  await terminal.says('first line')
  terminal.type('oa second line that is not saved\x1b')
  await terminal.says('not saved')
  terminal.type('yyp:s/second/third/\r')
  await terminal.says('third')
  await world.quick(['dump', 'job', jid])
  await terminal.exit
  expect(readFileSync(file, 'utf8')).toBe('first line\n')

  const again = world.terminal(['restore', 'job', jid, '--attach'], { env: { TERM: 'xterm' } })
  again.type('uithird: \x1b:wq\r')
  expect((await again.exit).code).toBe(0)
  // `u` took the substitution back; the copy of the line is still there.
  expect(readFileSync(file, 'utf8')).toBe('first line\na second line that is not saved\nthird: a second line that is not saved\n')
  expect(existsSync(`${file}.swp`)).toBe(false)
}, 60_000)

test('top under a terminal goes on showing', async () => {
  const jid = world.jid('top')
  const terminal = world.terminal(['run', 'process', '--tty', '--attach', '--jid', jid, '--', 'top', '-d', '0.2'], {
    env: { TERM: 'xterm' },
  })
  await terminal.says('Tasks')
  await world.quick(['dump', 'job', jid])
  await terminal.exit
  const again = world.terminal(['restore', 'job', jid, '--attach'], { env: { TERM: 'xterm' } })
  await again.says('%Cpu')
  again.type('q')
  expect((await again.exit).code).toBe(0)
}, 60_000)

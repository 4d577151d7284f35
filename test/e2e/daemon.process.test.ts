import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync, chmodSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { isAlive, processInfo } from '../support/processes.js'
import { until } from '../support/wait.js'
import { CEDANA, useWorld, World, type WorldOptions } from '../support/world.js'

/** A world of one test. */
async function ownWorld(options: WorldOptions = {}): Promise<World> {
  const world = new World(options)
  onTestFinished(() => world.close(), 60_000)
  await world.open()
  return world
}

describe('daemon start', () => {
  test('[must] is detected by the existence of the socket file, which is 0660 and not open to everybody (S1)', async () => {
    const world = await ownWorld()
    expect(statSync(world.socket).mode & 0o777).toBe(0o660)
    expect(statSync(join(world.dir, 'cedana.db')).mode & 0o777).toBe(0o600)
    expect(statSync(world.runDir).mode & 0o007).toBe(0)
  })

  test('a stale socket file is replaced (J10); a living daemon is not pushed aside', async () => {
    const world = await ownWorld()
    await world.killDaemon()
    expect(existsSync(world.socket)).toBe(true)
    await world.startDaemon()
    const second = await world.cedana(['daemon', 'start'], { timeoutMs: 10_000 })
    expect(second.code).toBe(1)
    expect(second.stderr).toContain(world.socket)
    await world.ok(['ps'])
  })

  test('SIGHUP makes it read its configuration again; a terminal that goes away does not end it', async () => {
    const world = await ownWorld({ withoutDaemon: true, env: { CEDANA_LOG_LEVEL: '' } })
    const file = join(world.dir, 'config', 'config.json')
    const logged = (): string => readFileSync(world.daemonLog, 'utf8')
    writeFileSync(file, '{"log_level": "info"}')
    await world.startDaemon()
    const job = await world.job('eventfd')
    writeFileSync(file, '{"log_level": "debug", "checkpoint": {"keep_last": 1}, "gpu": {"lock_timeout_ms": 5}}')
    process.kill(world.daemonPid, 'SIGHUP')
    await until('it has read it', () =>
      logged().includes(
        '"changed":["log_level","checkpoint.keep_last"],"atNextStart":["gpu.lock_timeout_ms"],"msg":"configuration read again"',
      ),
    )
    for (let count = 0; count < 2; count++) await world.quick(['dump', 'job', job.jid, '-R'])
    expect((await world.quick(['checkpoints', job.jid, '-q'])).stdout.trim().split('\n')).toHaveLength(1)
    await world.quick(['kill', job.jid])
    await until('it logs more', () => logged().includes('"level":"debug"'))
    writeFileSync(file, '{')
    process.kill(world.daemonPid, 'SIGHUP')
    await until('it complains', () => logged().includes('"msg":"the configuration stays as it was"'))
    writeFileSync(file, '{}')
    await world.ok(['ps'])
    expect(await world.stopDaemon()).toBe(0)
  })

  test('daemon reload says what has changed, what waits, and what is wrong', async () => {
    const world = await ownWorld({ withoutDaemon: true, env: { CEDANA_CHECKPOINT_DIR: '' } })
    const file = join(world.dir, 'config', 'config.json')
    await world.startDaemon()
    expect((await world.ok(['daemon', 'reload'])).stdout).toBe('Nothing has changed\n')
    const dir = join(world.dir, 'others')
    mkdirSync(dir)
    writeFileSync(
      file,
      JSON.stringify({ checkpoint: { dir }, jobs: { on_stop: 'kill' }, socket: { mode: '0600' }, profiling: { precision: 'ms' } }),
    )
    expect((await world.ok(['daemon', 'reload'])).stdout).toBe(
      'Changed: jobs.on_stop, checkpoint.dir\nAt the next start of the daemon: socket.mode\n',
    )
    const job = await world.job('counter')
    expect((await world.dump(job, ['-R'])).startsWith(`${dir}/`)).toBe(true)
    // In force by now; what waits still does.
    expect(JSON.parse((await world.ok(['daemon', 'reload', '-o', 'json'])).stdout)).toMatchObject({
      changed: [],
      at_next_start: ['socket.mode'],
    })
    writeFileSync(file, '{')
    const elsewhere = ['--config-dir', world.work()]
    expect((await world.fails(['daemon', 'reload', ...elsewhere])).stderr).toContain(`${file} is not valid JSON`)
    expect((await world.dump(job, ['-R', ...elsewhere])).startsWith(`${dir}/`)).toBe(true)
    writeFileSync(file, '{}')
    expect((await world.ok(['daemon', 'reload', '-q'])).stdout).toBe('jobs.on_stop\ncheckpoint.dir\n')
    chmodSync(world.dir, 0o755)
    chmodSync(world.socket, 0o666)
    expect((await world.fails(['daemon', 'reload'], { uid: 65534, cwd: '/' })).stderr).toContain('only root')
  })

  test('a socket of another program at the address is not taken away', async () => {
    const world = await ownWorld({ withoutDaemon: true })
    const other = createServer().listen(world.socket)
    await once(other, 'listening')
    const outcome = await world.cedana(['daemon', 'start'], { timeoutMs: 10_000 })
    expect(outcome.code).toBe(1)
    other.close()
  })

  test('only root may start it', async () => {
    const world = await ownWorld({ withoutDaemon: true })
    chmodSync(world.dir, 0o755)
    const { stderr } = await world.fails(['daemon', 'start'], { uid: 65534, cwd: '/' })
    expect(stderr).toMatch(/root/)
  })

  test('[must] --init-config with variables writes config.json and goes on', async () => {
    const world = await ownWorld({ withoutDaemon: true, env: { CEDANA_LOG_LEVEL: 'warn' } })
    await world.startDaemon(['--init-config'])
    const file = join(world.dir, 'config', 'config.json')
    expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({ log_level: 'warn', checkpoint: { dir: world.checkpoints } })
    await world.ok(['ps'])
  })

  test('--merge-config keeps what the file says', async () => {
    const world = await ownWorld({ withoutDaemon: true })
    const file = join(world.dir, 'config', 'config.json')
    writeFileSync(file, '{"criu": {"log_level": 4}}')
    await world.startDaemon(['--merge-config'])
    expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({ criu: { log_level: 4 }, checkpoint: { dir: world.checkpoints } })
  })

  test('flags win over the environment, which wins over the file: --address, --db, --config, --config-dir (U1, U2)', async () => {
    const world = await ownWorld({ withoutDaemon: true })
    const other = join(world.dir, 'other')
    mkdirSync(other)
    writeFileSync(join(other, 'config.json'), '{"checkpoint": {"compression": "tar"}, "address": "/nowhere"}')
    const db = join(other, 'flag.db')
    await world.startDaemon(['--config-dir', other, '--db', db])
    expect(existsSync(db)).toBe(true)
    await world.ok(['--address', world.socket, 'ps'], { env: { CEDANA_ADDRESS: '/nowhere' } })
    await world.ok([`--address=${world.socket}`, 'ps'], { env: { CEDANA_ADDRESS: '/nowhere' } })
    await world.fails(['--address', '/nowhere', 'ps'])
    await world.fails(['--config', `{"address": "/nowhere"}`, '--config-dir', other, 'ps'])
    const job = await world.job('eventfd')
    expect(await world.dump(job)).toMatch(/\.tar$/)
  })

  test.each([
    ['unknown key', '{"no_such_key": 1}', 'no_such_key'],
    ['wrong type', '{"metrics": "maybe"}', 'metrics'],
    ['bad JSON', '{"metrics": ', 'JSON'],
    ['not an object', '[]', 'object'],
  ])('a bad configuration file (%s): one clear line and exit 1 (U2)', async (_, text, word) => {
    const world = await ownWorld({ withoutDaemon: true })
    writeFileSync(join(world.dir, 'config', 'config.json'), text)
    const { code, stderr } = await world.fails(['daemon', 'start'])
    expect(code).toBe(1)
    expect(stderr).toContain(word)
    expect(stderr).toContain('config.json')
  })

  test('a second one with the same database is refused, whatever else it has of its own', async () => {
    const world = await ownWorld({})
    const own = { CEDANA_ADDRESS: join(world.dir, 'second.sock'), CEDANA_RUN_DIR: join(world.dir, 'second') }
    const { code, stderr } = await world.fails(['daemon', 'start'], { env: own })
    expect(code).toBe(1)
    expect(stderr).toMatch(/another daemon is running: it holds \S+cedana[.]db[.]lock/)
    expect(stderr).toContain('db.path')
    await world.ok(['ps'])
  })

  test('over TCP on the loopback only, with a token', async () => {
    const probe = createServer().listen(0, '127.0.0.1')
    await once(probe, 'listening')
    const { port } = probe.address() as { port: number }
    probe.close()
    const world = new World({ withoutDaemon: true })
    onTestFinished(() => world.close(), 60_000)
    await world.open()
    const token = join(world.dir, 'token')
    writeFileSync(token, 'a-token-of-some-length\n', { mode: 0o600 })
    const env = { CEDANA_PROTOCOL: 'tcp', CEDANA_ADDRESS: `127.0.0.1:${port}`, CEDANA_TCP_TOKEN_FILE: token }
    const daemon = spawn(CEDANA, ['daemon', 'start'], { env: { ...world.env, ...env }, stdio: 'ignore', cwd: world.dir })
    await until('it answers', async () => (await world.cedana(['ps'], { env })).code === 0)
    expect((await world.cedana(['ps'], { env: { ...env, CEDANA_TCP_TOKEN_FILE: undefined } })).code).toBe(1)
    const wrong = join(world.dir, 'wrong')
    writeFileSync(wrong, 'another-token-of-some-length\n', { mode: 0o600 })
    expect((await world.cedana(['ps'], { env: { ...env, CEDANA_TCP_TOKEN_FILE: wrong } })).code).toBe(1)
    daemon.kill('SIGTERM')
    await once(daemon, 'exit')
    expect(daemon.exitCode).toBe(0)
  })
})

describe('daemon stop', () => {
  test('SIGTERM: exit 0 within seconds, socket removed, jobs go on (J4) and are there at the next start', async () => {
    const world = await ownWorld()
    const job = await world.job('counter', ['10'])
    const before = performance.now()
    expect(await world.stopDaemon()).toBe(0)
    expect(performance.now() - before).toBeLessThan(10_000)
    expect(existsSync(world.socket)).toBe(false)
    expect(readdirSync(join(world.runDir, 'work'))).toEqual([])
    const seen = job.output().length
    await until('it goes on', () => job.output().length > seen)
    // Whatever a power cut has made of a note.
    for (const kind of ['stopped', 'gpu']) {
      mkdirSync(join(world.runDir, kind), { recursive: true })
      writeFileSync(join(world.runDir, kind, 'damaged'), '')
    }
    writeFileSync(join(world.runDir, 'jobs', job.jid, 'start.json'), '')
    await world.startDaemon()
    expect((await world.row(job.jid))?.[2]).toBe(String(job.pid))
    await world.quick(['kill', job.jid])
  })

  test('jobs.on_stop=kill ends them', async () => {
    const world = await ownWorld({ env: { CEDANA_JOBS_ON_STOP: 'kill' } })
    const job = await world.job('counter')
    const foreign = await world.foreign('counter')
    await world.ok(['manage', 'process', String(foreign.pid), '--jid', world.jid('managed')])
    expect(await world.stopDaemon()).toBe(0)
    await until('the job is gone', () => !isAlive(job.pid))
    expect(isAlive(foreign.pid), 'a process that was there before is not ours to end').toBe(true)
  })

  test('SIGTERM in the middle of a dump: the job lives and nothing half-made stays', async () => {
    const world = await ownWorld()
    const job = await world.job('memory', ['200', 'random'])
    const dump = world.cedana(['dump', 'job', job.jid])
    await until('the dump has begun', () => /dump/.test(readFileSync(world.daemonLog, 'utf8')))
    await world.stopDaemon()
    const outcome = await dump
    if (outcome.code === 0) {
      await world.startDaemon()
      await world.ok(['restore', 'job', job.jid])
    }
    expect(isAlive(job.pid)).toBe(true)
    await job.verify()
  })

  test('a client without a daemon: `Unavailable`, exit 1, names the address', async () => {
    const world = await ownWorld({ withoutDaemon: true })
    for (const args of [['ps'], ['dump', 'process', '1'], ['run', 'process', 'true'], ['daemon', 'check'], ['job', 'attach', 'x']]) {
      const { stderr } = await world.fails(args)
      expect(stderr).toContain(world.socket)
    }
  })

  test('client.wait_for_ready waits for it', async () => {
    const world = await ownWorld({ withoutDaemon: true })
    const waiting = world.ok(['ps'], { env: { CEDANA_CLIENT_WAIT_FOR_READY: 'true' } })
    await world.startDaemon()
    expect((await waiting).stdout).toContain('No jobs found')
  })
})

describe('check', () => {
  const world = useWorld()

  test.each([[['check']], [['check', '--full']], [['daemon', 'check']], [['daemon', 'check', '--full']]])(
    '[must] `%j` exits 0 on a good host',
    async (args) => {
      const { stdout } = await world.ok(args)
      expect(stdout).toMatch(/CRIU/)
      expect(stdout).toMatch(/All good\.|Looks good, with \d+ warning\(s\)\./)
    },
  )

  test('without a working CRIU: the problem is named, exit 1', async () => {
    const outcome = await world.cedana(['check'], { env: { CEDANA_CRIU_BINARY_PATH: '/bin/false' } })
    expect(outcome.code).toBe(1)
    expect(outcome.stderr).toMatch(/Error: Failed with \d+ error\(s\)/)
  })

  test('--output json', async () => {
    expect(JSON.stringify(JSON.parse((await world.ok(['check', '--output', 'json'])).stdout))).toMatch(/criu/i)
  })

  test('version: the client alone on one line, and with the daemon as JSON', async () => {
    expect((await world.ok(['--version'])).stdout).toMatch(/cedana version \S+/)
    expect((await world.ok(['version'])).stdout.trim()).toMatch(/\S+/)
    expect(processInfo(world.daemonPid)).toBeDefined()
  })
})

import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { useContainers } from '../support/containers.js'
import { isAlive } from '../support/processes.js'
import { until } from '../support/wait.js'
import { CEDANA, useWorld } from '../support/world.js'

const world = useWorld()
const containers = useContainers(world)

const COUNT = ['sh', '-c', 'i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done']
const root = (): string[] => ['--root', containers.root]

/** A container as a job, started by the daemon. */
async function job(word: string, args: readonly string[] = COUNT, flags: readonly string[] = []) {
  const id = containers.id(word)
  const jid = world.jid(word)
  const bundle = containers.bundle(id, { args })
  const { stdout } = await world.ok(['run', 'runc', id, '--jid', jid, '--bundle', bundle, ...root(), ...flags])
  const log = `/var/log/cedana-output-${jid}.log`
  return { id, jid, bundle, log, pid: Number(/PID (\d+)/.exec(stdout)?.[1]), stdout, output: () => readFileSync(log, 'utf8') }
}
const ended = (jid: string) => until(`${jid} has ended`, async () => (await world.inspect(jid)).is_running === false)
const status = async (id: string): Promise<string | undefined> => {
  const { code, stdout } = await containers.command('state', id)
  return code === 0 ? (JSON.parse(stdout) as { status: string }).status : undefined
}

describe('run runc', () => {
  test('`Running managed runc PID <pid>`: the container is a job, its output in the log, and gone from the runtime after its end', async () => {
    const one = await job('run')
    expect(one.stdout).toContain(`Running managed runc PID ${one.pid}`)
    const row = await world.row(one.jid)
    expect(row?.slice(0, 4)).toEqual([one.jid, 'runc', String(one.pid), expect.stringMatching(/running|sleep/)])
    await until('it counts', () => one.output().includes('10\n'))
    expect(await status(one.id)).toBe('running')
    await world.quick(['kill', one.jid])
    expect(await status(one.id)).toBeUndefined()
    expect(isAlive(one.pid)).toBe(false)
    await world.quick(['delete', one.jid])
  })

  test('[must] the exit code is stored, and is that of --attach', async () => {
    const one = await job('exit', ['sh', '-c', 'sleep 0.2; exit 42'])
    await ended(one.jid)
    expect((await world.inspect(one.jid))['exit']).toMatchObject({ code: 42 })
    expect(await status(one.id)).toBeUndefined()
    const id = containers.id('attach')
    const bundle = containers.bundle(id, { args: ['sh', '-c', 'cat; echo bye; exit 7'] })
    const flags = ['--jid', world.jid('attach'), '--bundle', bundle, ...root(), '--attach']
    const outcome = await world.cedana(['run', 'runc', id, ...flags], { stdin: 'hello\n' })
    expect(outcome).toMatchObject({ code: 7, stdout: 'hello\nbye\n' })
  })

  test('without an id it has that of the job; a relative bundle is the caller’s; the current directory is the default', async () => {
    const jid = world.jid('named')
    const bundle = containers.bundle(jid, {})
    await world.ok(['run', 'runc', '--jid', jid, ...root()], { cwd: bundle })
    expect(await status(jid)).toBe('running')
    await world.quick(['kill', jid])
    await world.quick(['delete', jid])
    await world.ok(['run', 'runc', '--jid', jid, '--bundle', '.', ...root()], { cwd: bundle })
    await world.quick(['kill', jid])
  })

  test('the bundle is never written to, also where the terminal must differ', async () => {
    const id = containers.id('bundle')
    const jid = world.jid('bundle')
    const bundle = containers.bundle(id, { args: COUNT, terminal: true })
    const before = [readFileSync(join(bundle, 'config.json'), 'utf8'), statSync(join(bundle, 'config.json')).mtimeMs]
    await world.ok(['run', 'runc', id, '--jid', jid, '--bundle', bundle, ...root()])
    expect(await containers.ok('exec', id, 'echo', 'inside')).toBe('inside\n')
    await world.quick(['kill', jid])
    expect([readFileSync(join(bundle, 'config.json'), 'utf8'), statSync(join(bundle, 'config.json')).mtimeMs]).toEqual(before)
  })

  test('bad input: one clear line, no job', async () => {
    const jid = world.jid('bad')
    const run = (...args: string[]) => world.fails(['run', 'runc', '--jid', jid, ...root(), ...args])
    expect((await run('--bundle', '/nowhere')).stderr).toMatch(/failed to load spec of bundle \/nowhere: there is no config.json/)
    const broken = world.work()
    writeFileSync(join(broken, 'config.json'), '{')
    expect((await run('--bundle', broken)).stderr).toContain('is not JSON')
    writeFileSync(join(broken, 'config.json'), '{"ociVersion":"1.0.2","process":{},"root":{}}')
    expect((await run('--bundle', broken)).stderr).toContain('root.path')
    const bundle = containers.bundle(containers.id('bad'), { args: ['no-such-program'] })
    expect((await run('--bundle', bundle)).stderr).toMatch(/runc: .*no-such-program.*not found/)
    if (!existsSync('/run/systemd/system'))
      expect((await run('--bundle', bundle, '--systemd-cgroup')).stderr).toMatch(/^Error: Internal: runc: .*systemd/m)
    expect((await run('--bundle', bundle, 'a/b')).stderr).toContain('invalid container id')
    expect((await run('--bundle', bundle, '--runtime', '/bin/no-such-runtime')).stderr).toContain('no-such-runtime')
    expect(await world.row(jid)).toBeUndefined()
    expect(containers.known()).toEqual([])
  })

  test('an id that is taken is refused, and the container that has it lives on', async () => {
    const one = await job('taken')
    const { stderr } = await world.fails(['run', 'runc', one.id, '--jid', world.jid('second'), '--bundle', one.bundle, ...root()])
    expect(stderr).toContain(`container ${one.id} exists already`)
    expect(await status(one.id)).toBe('running')
    await world.quick(['kill', one.jid])
  })

  test('[must] --no-server: the exit code of the container; --detach leaves it running; --pid-file has the PID of its init', async () => {
    const id = containers.id('here')
    const bundle = containers.bundle(id, { args: ['sh', '-c', 'cat; echo out; exit 42'] })
    const pidFile = join(world.work(), 'pid')
    const here = ['--no-server', '--bundle', bundle, ...root()]
    const outcome = await world.cedana(['run', 'runc', id, ...here, '--pid-file', pidFile], { stdin: 'in\n' })
    expect(outcome).toMatchObject({ code: 42, stdout: 'in\nout\n' })
    expect(readFileSync(pidFile, 'utf8')).toMatch(/^\d+$/)
    expect(await status(id)).toBeUndefined()
    const left = containers.container('left', { args: COUNT })
    // The container keeps the standard streams of the command: with pipes the test would wait for it.
    const args = ['run', 'runc', left.id, '--no-server', '--detach', '--bundle', left.bundle, ...root()]
    const options = { env: world.env, stdio: 'ignore', timeout: 20_000 } as const
    expect(spawnSync(CEDANA, args, options).status).toBe(0)
    expect((await left.state())?.status).toBe('running')
  })
})

describe('manage, freeze, query', () => {
  test('a running container becomes a job; what is only managed stays with the runtime after its end', async () => {
    const container = containers.container('managed')
    const pid = await container.run()
    const jid = world.jid('managed')
    expect((await world.ok(['manage', 'runc', container.id, '--jid', jid, ...root()])).stdout).toContain(`Managing runc PID ${pid}`)
    expect((await world.fails(['manage', 'runc', container.id, '--jid', world.jid('again'), ...root()])).stderr).toContain(jid)
    await container.kill()
    await ended(jid)
    expect((await container.state())?.status).toBe('stopped')
  })

  test('a container that is not there', async () => {
    for (const verb of ['manage', 'dump', 'freeze', 'unfreeze'])
      expect((await world.fails([verb, 'runc', 'nobody', ...root()])).stderr).toContain('NotFound: container with ID nobody does not exist')
    expect((await world.fails(['dump', 'runc'])).stderr).toMatch(/missing.*id/i)
  })

  test('the whole container stands still, the runtime calls it paused, and a frozen one can be killed', async () => {
    const one = await job('freeze')
    await until('it counts', () => one.output().includes('5\n'))
    expect((await world.ok(['freeze', 'runc', one.id, ...root()])).stdout).toBe(`Froze runc PID ${one.pid}\n`)
    expect(await status(one.id)).toBe('paused')
    const length = one.output().length
    await new Promise((resolve) => setTimeout(resolve, 150))
    expect(one.output().length).toBe(length)
    await world.ok(['freeze', 'job', one.jid])
    expect((await world.ok(['unfreeze', 'job', one.jid])).stdout).toBe(`Unfroze runc PID ${one.pid}\n`)
    await until('it goes on', () => one.output().length > length)
    await world.ok(['freeze', 'job', one.jid])
    await world.quick(['kill', one.jid])
    expect(isAlive(one.pid)).toBe(false)
    expect(await status(one.id)).toBeUndefined()
  })

  test('query lists what the runtime knows', async () => {
    const container = containers.container('query')
    await container.run()
    const { stdout } = await world.ok(['query', 'runc', ...root(), '--id', `${container.id},nobody`])
    expect(stdout).toContain(`${container.id}  ${container.bundle}  ${containers.root}`)
    expect(stdout).toContain('Found 1 container')
    expect(stdout).toContain('container nobody: does not exist')
    expect((await world.fails(['query', 'runc', ...root(), '--id', 'nobody'])).stderr).toContain('container nobody: does not exist')
    mkdirSync(join(world.dir, 'empty-root'))
    expect((await world.ok(['query', 'runc', '--root', join(world.dir, 'empty-root')])).stdout).toContain('No results found')
    await container.remove()
  })
})

test('SIGKILL of the daemon: the container goes on, its output and its exit code are not lost, and its remains are removed', async () => {
  const one = await job('survives', ['sh', '-c', 'i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo $i; usleep 10000; done; exit 9'])
  await world.killDaemon()
  await until('it has ended by itself', () => !isAlive(one.pid))
  await world.startDaemon()
  expect((await world.inspect(one.jid))['exit']).toMatchObject({ code: 9 })
  const numbers = one.output().trim().split('\n').map(Number)
  expect(numbers).toEqual(numbers.map((_, index) => index + 1))
  expect(numbers.length).toBe(100)
  expect(await status(one.id)).toBeUndefined()
  await until('its directory is gone', () => !existsSync(join(world.runDir, 'jobs', one.jid)))
})

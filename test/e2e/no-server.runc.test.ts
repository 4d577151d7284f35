import { spawn, spawnSync } from 'node:child_process'
import { closeSync, existsSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { useContainers } from '../support/containers.js'
import { isAlive } from '../support/processes.js'
import { until } from '../support/wait.js'
import { CEDANA, useWorld } from '../support/world.js'

const world = useWorld({ withoutDaemon: true })
const containers = useContainers(world)

const COUNT = ['sh', '-c', 'i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo $i; usleep 20000; done; exit 42']
const here = (): string[] => ['--no-server', '--root', containers.root]

/** Takes one terminal that is sent there, and reads from it: node itself cannot be given a descriptor. */
async function terminals(path: string): Promise<{ seen(): string; close(): void }> {
  const script = [
    'import array, os, socket, sys',
    's = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(1); print("listens", flush=True)',
    'c, _ = s.accept(); _, [(_, _, data)], _, _ = c.recvmsg(4096, 64); fd = array.array("i", data)[0]',
    'while True: os.write(1, os.read(fd, 4096))',
  ]
  const child = spawn('python3', ['-c', script.join('\n'), path], { stdio: ['ignore', 'pipe', 'ignore'] })
  let text = ''
  child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()))
  await until('it listens', () => text.startsWith('listens'))
  return { seen: () => text.slice('listens\n'.length), close: () => child.kill('SIGKILL') }
}

describe('without a daemon', () => {
  test('[must] dump, and restore with the streams, the signals and the exit code of the command', async () => {
    const container = containers.container('here', {
      args: ['sh', '-c', 'trap "echo asked; exit 42" TERM; while :; do echo tick; usleep 50000; done'],
    })
    const run = world.talk(['run', 'runc', container.id, '--bundle', container.bundle, ...here()])
    await run.says(/tick/)
    const { stdout } = await world.ok(['dump', 'runc', container.id, ...here()])
    const path = /^Dumped to (.*)$/m.exec(stdout)?.[1] ?? ''
    expect((await run.exit).code).not.toBe(0)
    await until('the runtime has removed its own', async () => (await container.state()) === undefined)
    const pidFile = join(world.work(), 'pid')
    const restore = world.talk(['restore', 'runc', '--path', path, '--pid-file', pidFile, ...here()])
    await restore.says(/tick/)
    expect((await container.state())?.status).toBe('running')
    // Until the restore is complete a signal undoes it.
    await until('the restore is complete', () => existsSync(pidFile))
    restore.signal('SIGTERM')
    expect((await restore.exit).code).toBe(42)
    expect(restore.stdout).toContain('asked')
    expect(await container.state(), '[must] destroyed at its end').toBeUndefined()
  })

  test('--leave-running, --pid-file; [must] --detach leaves the restored one running', async () => {
    const container = containers.container('detach', { args: COUNT })
    await container.run()
    await until('it counts', () => container.output().includes('10\n'))
    const path = /^Dumped to (.*)$/m.exec((await world.ok(['dump', 'runc', container.id, '--leave-running', ...here()])).stdout)?.[1] ?? ''
    const { length } = container.output()
    await until('it goes on', () => container.output().length > length)
    await container.kill()
    await container.remove()
    const pidFile = join(world.work(), 'pid')
    const args = ['restore', 'runc', '--path', path, '--detach', '--pid-file', pidFile, ...here()]
    // The restored one keeps the streams of the command.
    const out = openSync(container.log, 'a')
    expect(spawnSync(CEDANA, args, { env: world.env, stdio: ['ignore', out, out], timeout: 20_000 }).status).toBe(0)
    closeSync(out)
    expect((await container.state())?.status).toBe('running')
    expect(Number(readFileSync(pidFile, 'utf8'))).toBe((await container.state())?.pid)
    const after = container.output().length
    await until('it counts on in its file', () => container.output().length > after)
    await container.remove()
    rmSync(path, { recursive: true })
  })

  test('the flags of the runtime, and --preserve-fds: the container has the descriptors of the command', async () => {
    const [id, work] = [containers.id('flags'), world.work()]
    const bundle = containers.bundle(id, { args: ['sh', '-c', 'cat <&3; cat <&4; exit 3'] })
    const recorder = join(work, 'recorder')
    writeFileSync(recorder, `#!/bin/sh\necho "$*" >> ${work}/argv\nexec runc "$@"\n`, { mode: 0o755 })
    for (const name of ['first', 'second']) writeFileSync(join(work, name), `${name}\n`)
    const [first, second] = ['first', 'second'].map((name) => openSync(join(work, name), 'r')) as [number, number]
    const flags = ['--log', join(work, 'log'), '--log-format', 'json', '--rootless', 'false', '--no-new-keyring', '--no-subreaper']
    const args = ['run', 'runc', id, '--bundle', bundle, '--runtime', recorder, '--preserve-fds', '2', ...flags, ...here()]
    const { status, stdout } = spawnSync(CEDANA, args, { env: world.env, stdio: ['ignore', 'pipe', 'inherit', first, second] })
    for (const fd of [first, second]) closeSync(fd)
    expect([status, stdout.toString()]).toEqual([3, 'first\nsecond\n'])
    const [argv = ''] = readFileSync(join(work, 'argv'), 'utf8').split('\n')
    const before = `--root ${containers.root} --log ${join(work, 'log')} --log-format json --rootless false run `
    expect(argv.startsWith(before)).toBe(true)
    for (const flag of ['--no-new-keyring', '--no-subreaper', '--preserve-fds 2', `--bundle ${bundle}`]) expect(argv).toContain(flag)
  })

  test('a terminal, by a console socket: run, dump and restore; where there is none, the runtime says so', async () => {
    const container = containers.container('console', { terminal: true, args: COUNT })
    const call = (args: readonly string[]) =>
      spawnSync(CEDANA, [...args, '--detach', ...here()], { env: world.env, stdio: 'pipe', timeout: 20_000 })
    const run = ['run', 'runc', container.id, '--bundle', container.bundle]
    const refused = call(run)
    expect([refused.status, refused.stderr.toString()]).toEqual([1, expect.stringContaining('without setting console socket')])
    const master = async (args: readonly string[]): Promise<{ close(): void }> => {
      const path = join(world.work(), 'console')
      const server = await terminals(path)
      expect((await world.ok([...args, '--detach', '--console-socket', path, ...here()])).code).toBe(0)
      await until('the terminal has come, and is written to', () => server.seen().includes('\n'))
      return server
    }
    const before = await master(run)
    const path = /^Dumped to (.*)$/m.exec((await world.ok(['dump', 'runc', container.id, ...here()])).stdout)?.[1] ?? ''
    before.close()
    await container.remove()
    const after = await master(['restore', 'runc', '--path', path])
    expect((await container.state())?.status).toBe('running')
    after.close()
    await container.remove()
    rmSync(path, { recursive: true })
  })

  test('a container whose terminal is gone is not dumped, since it could not be restored', async () => {
    const container = containers.container('gone', { terminal: true, args: ['sh', '-c', `trap "" HUP; ${COUNT.at(-1) ?? ''}`] })
    const path = join(world.work(), 'console')
    const server = await terminals(path)
    await world.ok(['run', 'runc', container.id, '--bundle', container.bundle, '--detach', '--console-socket', path, ...here()])
    const pid = (await container.state())?.pid ?? 0
    await until('the terminal is written to', () => server.seen().includes('\n'))
    server.close()
    await until('the terminal is gone', () => readFileSync(`/proc/${pid}/mountinfo`, 'utf8').includes('//deleted'))
    const outcome = await world.fails(['dump', 'runc', container.id, ...here()])
    expect(outcome.stderr).toContain('the terminal that is mounted at /dev/console is gone')
    expect(isAlive(pid)).toBe(true)
    await container.remove()
  })

  test('cgroups that the runtime was too hasty to remove', async () => {
    const container = containers.container('cgroups', { args: ['sh', '-c', 'exit 42'] })
    const hasty = join(world.work(), 'hasty')
    const left = `for one in /sys/fs/cgroup /sys/fs/cgroup/*; do [ ! -e $one/cgroup.procs ] || mkdir $one/${container.id}; done`
    writeFileSync(hasty, `#!/bin/sh\nrunc "$@"; code=$?\n${left}\nexit $code\n`, { mode: 0o755 })
    const args = ['run', 'runc', container.id, '--bundle', container.bundle, '--runtime', hasty, ...here()]
    expect((await world.cedana(args)).code).toBe(42)
    // That none is left is judged at the end.
    expect(containers.known()).toEqual([])
  })

  test('a failed dump leaves the container running', async () => {
    const container = containers.container('fails', { args: COUNT })
    const pid = await container.run()
    const outcome = await world.fails(['dump', 'runc', container.id, '--dir', '/nowhere', ...here()])
    expect(outcome.stderr).toContain('dump dir does not exist: /nowhere')
    expect(isAlive(pid)).toBe(true)
    expect((await container.state())?.status).toBe('running')
  })
})

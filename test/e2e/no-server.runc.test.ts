import { spawnSync } from 'node:child_process'
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

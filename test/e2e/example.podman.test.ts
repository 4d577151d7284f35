/** The example of a plugin that is a package of its own, built with the kit alone, with a real Podman. */
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { installTypeScript, npm } from '../support/author.js'
import { until } from '../support/wait.js'
import { CEDANA, useWorld } from '../support/world.js'

const ROOT = dirname(dirname(CEDANA))
const IMAGE = 'localhost/busybox:1'
const world = useWorld({ env: { PATH: `${dirname(CEDANA)}:${process.env['PATH'] ?? ''}` } })

const globals = (): string[] => [
  `--root=${world.dir}/podman`,
  `--runroot=${world.dir}/podman-run`,
  ...['--runtime=runc', '--cgroup-manager=cgroupfs', '--storage-driver=vfs', '--events-backend=none'],
]
/** Limits: without CAP_SYS_RESOURCE those that podman sets by itself cannot be set. */
const CREATE = ['--network=host', '--ulimit=nofile=1024:1024', '--ulimit=nproc=1024:1024']
const podman = (...args: readonly string[]): string =>
  execFileSync('podman', [...globals(), ...args], { encoding: 'utf8', env: world.env }).trim()
const flags = (): string[] => globals().map((flag) => `--podman=${flag}`)
const counting = ['sh', '-c', 'i=0; while sleep 0.05; do i=$((i+1)); echo $i; done']
const last = (name: string): number => Number(podman('logs', '--tail', '1', name))

let directory: string
beforeAll(async () => {
  directory = join(world.work(), 'podman')
  cpSync(join(ROOT, 'examples/podman'), directory, { recursive: true, filter: (path) => !/[/](node_modules|dist)$/.test(path) })
  installTypeScript(directory)
  await world.ok(['plugin', 'link', directory])
  await npm(world, directory, ['run', 'build'])
  await world.ok(['plugin', 'install', directory])

  const image = join(world.work(), 'image')
  mkdirSync(join(image, 'bin'), { recursive: true })
  cpSync('/bin/busybox', join(image, 'bin/busybox'))
  for (const name of ['sh', 'sleep', 'cat']) symlinkSync('busybox', join(image, 'bin', name))
  execFileSync('tar', ['-C', image, '-cf', `${image}.tar`, '.'])
  podman('import', '--quiet', `${image}.tar`, IMAGE)
}, 120_000)
afterAll(() => {
  podman('rm', '--all', '--force', '--time=0')
  // Podman leaves the parent of its cgroups.
  const below = ['/sys/fs/cgroup', '-depth', '-type', 'd', '-path', '*/libpod_parent*']
  execFileSync('sh', ['-c', `find "$@" -exec rmdir {} + || true`, 'sh', ...below], { stdio: 'ignore' })
})

describe('podman', () => {
  test('its package passes its own tests: the conformance suite', async () => {
    expect(await npm(world, directory, ['test'])).toMatch(/# pass 11\n# fail 0/)
  }, 120_000)

  test('a container of podman is managed, dumped and restored; podman sees it all', async () => {
    const name = 'managed'
    podman('run', '--detach', '--name', name, ...CREATE, IMAGE, ...counting)
    const jid = world.jid(name)
    await world.ok(['manage', 'podman', name, ...flags(), '--jid', jid])
    await until('it counts', async () => last(name) > 2)
    await world.quick(['dump', 'job', jid])
    expect(podman('inspect', '--format={{.State.Status}}', name)).toBe('exited')
    const before = last(name)
    await world.quick(['restore', 'job', jid])
    expect(podman('inspect', '--format={{.State.Status}}', name)).toBe('running')
    await until('it goes on where it was', async () => last(name) > before)
    expect((await world.fails(['restore', 'job', jid])).stderr).toContain('running')
    await world.quick(['kill', jid])
    await until('podman has seen the end', async () => podman('inspect', '--format={{.State.Status}}', name) === 'exited')
  })

  test('what is in /dev/shm is kept, though podman unmounts it with the end of the container', async () => {
    const name = 'shared-memory'
    const writes = 'exec 3>/dev/shm/kept; echo kept >&3; i=0; while sleep 0.05; do i=$((i+1)); echo $i $(cat /dev/shm/kept); done'
    podman('run', '--detach', '--name', name, ...CREATE, IMAGE, 'sh', '-c', writes)
    const said = (): string => podman('logs', '--tail', '1', name)
    await until('it has written', async () => said().endsWith(' kept'))
    const jid = world.jid(name)
    await world.ok(['manage', 'podman', name, ...flags(), '--jid', jid])
    await world.quick(['dump', 'job', jid])
    const before = Number.parseInt(said(), 10)
    const mounted = (): boolean =>
      readFileSync('/proc/self/mounts', 'utf8').includes(`${podman('inspect', '--format={{.Id}}', name)}/userdata/shm `)
    await until('it is unmounted', async () => !mounted())
    await world.quick(['restore', 'job', jid])
    await until('it goes on where it was', async () => Number.parseInt(said(), 10) > before)
    expect(said()).toMatch(/^\d+ kept$/)
    await world.quick(['kill', jid])
    await until('podman has seen the end', async () => podman('inspect', '--format={{.State.Status}}', name) === 'exited')
  })

  test('run: with the exit code of the container; dumped by name', async () => {
    const jid = world.jid('run')
    const create = CREATE.map((flag) => `--create=${flag}`)
    await world.ok(['run', 'podman', ...flags(), ...create, '--jid', jid, IMAGE, '--', 'sh', '-c', 'sleep 1; exit 7'])
    // Podman has to be asked, after the end is seen.
    await until('how it has ended is known', async () => (await world.inspect(jid))['exit'] !== undefined)
    expect(await world.inspect(jid)).toMatchObject({ status: 'halted', exit: { code: 7 } })
    const other = world.jid('other')
    await world.ok(['run', 'podman', ...flags(), ...create, '--jid', other, IMAGE, '--', ...counting])
    await until('it counts', async () => last(other) > 2)
    expect((await world.ok(['dump', 'podman', other, ...flags(), '--leave-running'])).stdout).toContain('Dumped to')
    expect((await world.ok(['query', 'podman', ...flags()])).stdout).toContain(other)
    await world.quick(['kill', other])
    expect((await world.fails(['run', 'podman', ...flags(), '--jid', world.jid('none'), 'localhost/none:1'])).stderr).toContain('none')
  })

  test('manage --upcoming: from its first moment', async () => {
    const jid = world.jid('upcoming')
    const waiting = world.ok(['manage', 'podman', 'soon', ...flags(), '--upcoming', '--jid', jid])
    await until('it waits', async () => readFileSync(world.daemonLog, 'utf8').includes('waiting for the target'))
    podman('run', '--detach', '--name', 'soon', ...CREATE, IMAGE, ...counting)
    expect((await waiting).stdout).toContain('Managing podman PID')
    await world.quick(['freeze', 'job', jid])
    await world.quick(['kill', jid])
    await until('it has ended', async () => podman('inspect', '--format={{.State.Status}}', 'soon') === 'exited')
  })
})

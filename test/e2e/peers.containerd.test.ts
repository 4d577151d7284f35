/** Containers as other clients of containerd make them: with labels, hooks and a logger (nerdctl), or several to a shim (pods). */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { Containerd } from '../../src/plugins/containerd/client.js'
import { SnapshotsService } from '../../src/plugins/containerd/gen/snapshots.js'
import { TasksService } from '../../src/plugins/containerd/gen/tasks.js'
import { useContainerd } from '../support/containerd.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const world = useWorld()
const containerd = useContainerd(world)

const COUNTER = ['sh', '-c', 'n=0; while :; do n=$((n+1)); echo $n; sleep 0.02; done']

interface Hooked {
  readonly process: { args: string[]; env: string[] }
  readonly root: { path: string }
  readonly linux: { cgroupsPath: string }
  hooks?: object
}
interface Info {
  readonly Labels: Readonly<Record<string, string>>
  readonly Image: string
  readonly Spec: object
  readonly Runtime: object
  readonly Snapshotter: string
}

/** What containerd knows of a container, but for when it was changed last. */
const info = async (id: string): Promise<Info> => {
  const { UpdatedAt: _, ...rest } = JSON.parse(await containerd.ok('containers', 'info', id)) as Info & { readonly UpdatedAt: string }
  return rest
}

async function dumped(id: string, flags: readonly string[] = []): Promise<string> {
  const { stdout } = await world.ok(['dump', 'containerd', id, ...containerd.flags, ...flags])
  await until('the task has ended', async () => (await containerd.task(id))?.status !== 'RUNNING')
  return /^Dumped to (.+)$/m.exec(stdout)?.[1] ?? ''
}

/** A task with a terminal whose output goes to a logger, as nerdctl makes it; `ctr` does not. To a file of it, containerd's shim cannot. */
async function start(id: string, uri: string): Promise<void> {
  using client = new Containerd(containerd)
  const { mounts: rootfs } = await client.call(SnapshotsService.mounts, { snapshotter: 'overlayfs', key: id })
  await client.call(TasksService.create, { containerId: id, rootfs, terminal: true, stdout: uri })
  await client.call(TasksService.start, { containerId: id })
}

const numbers = (text: string): number[] => text.trim().split('\n').map(Number)
const isCounting = (text: string): boolean => text.endsWith('\n') && numbers(text).every((number, index) => number === index + 1)

describe('a container that another client has made', () => {
  /** As the names of nerdctl are: whatever they say, they are not ours. */
  const LABELS = {
    'nerdctl/namespace': 'default',
    'nerdctl/name': 'web',
    'nerdctl/hostname': 'web',
    'nerdctl/state-dir': '/var/lib/nerdctl/1935db59/containers/default/web',
    'nerdctl/extraHosts': '[]',
    'nerdctl/networks': '["bridge"]',
    'io.containerd.image.config.stop-signal': 'SIGQUIT',
  }

  test('keeps its record, and a program goes on taking its output', async () => {
    const id = containerd.id('logged')
    const log = join(world.work(), 'log')
    const logger = join(world.work(), 'logger')
    // As containerd calls one: output, errors, and what is closed when it is ready.
    writeFileSync(logger, '#!/bin/sh\nexec 5>&-\nexec cat <&3 >>"$2"\n', { mode: 0o755 })
    const uri = `binary://${logger}?to=${log}`
    const labels = Object.entries({ ...LABELS, 'nerdctl/log-uri': uri }).flatMap(([name, value]) => ['--label', `${name}=${value}`])
    const image = await containerd.busybox()
    await containerd.ok('run', '--detach', '--log-uri', uri, '--env', world.mark, ...labels, image, id, ...COUNTER)
    const output = (): string => readFileSync(log, 'utf8')
    await until('it counts', () => existsSync(log) && output().includes('5\n'))
    const before = await info(id)
    await world.ok(['manage', 'containerd', id, '--jid', id, ...containerd.flags])
    await world.quick(['dump', 'job', id])
    await until('the task is gone', async () => (await containerd.task(id)) === undefined)
    const { length } = output()
    await world.quick(['restore', 'job', id])
    await until('it counts on, and is heard', () => output().length > length + 10)
    await until('all of it', () => isCounting(output()))
    expect(await info(id)).toEqual(before)
    expect(await containerd.exec(id, 'echo', 'there')).toBe('there\n')
    const path = await dumped(id, ['--rootfs'])
    await world.quick(['job', 'delete', id])
    await containerd.ok('containers', 'rm', id)
    await world.ok(['restore', 'containerd', '--path', path])
    const { Labels, Image, Spec, Runtime, Snapshotter } = await info(id)
    expect({ Image, Spec, Runtime, Snapshotter }).toEqual({
      Image: before.Image,
      Spec: before.Spec,
      Runtime: before.Runtime,
      Snapshotter: before.Snapshotter,
    })
    expect(Labels).toEqual({ ...before.Labels, 'cedana/made-for': expect.any(String) as string })
    const again = output().length
    await until('it is heard again', () => output().length > again + 10)
    await containerd.ok('tasks', 'kill', '--signal', 'SIGKILL', id)
    await until('nothing is left of it', async () => !(await containerd.containers()).includes(id))
  })

  test('has a terminal, and a program goes on taking what is shown there', async () => {
    const id = containerd.id('shown')
    const log = join(world.work(), 'log')
    const logger = join(world.work(), 'logger')
    writeFileSync(logger, '#!/bin/sh\nexec 5>&-\nexec cat <&3 >>"$2"\n', { mode: 0o755 })
    const uri = `binary://${logger}?to=${log}`
    const image = await containerd.busybox()
    await containerd.ok('containers', 'create', '--tty', '--env', world.mark, '--', image, id, ...COUNTER)
    await start(id, uri)
    const output = (): string => readFileSync(log, 'utf8').replaceAll('\r', '')
    await until('it counts', () => existsSync(log) && output().includes('5\n'))
    for (const flags of [[], ['--rootfs']]) {
      const path = await dumped(id, flags)
      const { length } = output()
      await world.ok(['restore', 'containerd', '--path', path])
      await until('it counts on, and is heard', () => output().length > length + 10)
      await until('all of it', () => isCounting(output()))
      expect(await containerd.exec(id, 'readlink', '/proc/1/fd/1')).toBe('/dev/pts/0\n')
    }
    await containerd.remove(id)
  })

  test('has its hooks called for what comes back', async () => {
    const id = containerd.id('hooked')
    const calls = join(world.work(), 'calls')
    await containerd.busybox()
    const spec = JSON.parse(await containerd.ok('oci', 'spec')) as Hooked
    spec.process.args = [...COUNTER]
    spec.process.env = ['PATH=/bin', world.mark]
    spec.root.path = containerd.busyboxRoot
    spec.linux.cgroupsPath = `/${containerd.namespace}/${id}`
    const hook = (name: string): object[] => [{ path: '/bin/sh', args: ['sh', '-c', `{ echo ${name}; cat; echo; } >> ${calls}`] }]
    spec.hooks = { createRuntime: hook('createRuntime'), poststop: hook('poststop') }
    const config = join(world.work(), 'config.json')
    writeFileSync(config, JSON.stringify(spec))
    await containerd.ok('run', '--detach', '--log-uri', `file://${join(world.work(), 'log')}`, '--config', config, id)
    const before = await info(id)
    const called = (): string[] =>
      readFileSync(calls, 'utf8')
        .trim()
        .split('\n')
        .filter((line) => !line.startsWith('{'))
    expect(called()).toEqual(['createRuntime'])
    const path = await dumped(id)
    await world.ok(['restore', 'containerd', '--path', path])
    const pid = (await containerd.task(id))?.pid
    expect(await info(id)).toEqual(before)
    expect(called()).toEqual(['createRuntime', 'poststop', 'createRuntime'])
    // By this it finds the network namespace to set up.
    expect(JSON.parse(readFileSync(calls, 'utf8').trim().split('\n').at(-1) ?? '')).toMatchObject({ id, pid })
    await containerd.remove(id)
    expect(called().at(-1)).toBe('poststop')
  })
})

describe('containers that share a shim', () => {
  test.each(['first', 'second'])('the %s is dumped, restored, and still containerd’s', async (which) => {
    const group = containerd.id('pod')
    const grouped = ['--annotation', `io.containerd.runc.v2.group=${group}`]
    const image = await containerd.busybox()
    const ids = { first: containerd.id('first'), second: containerd.id('second') }
    for (const id of [ids.first, ids.second]) await containerd.run(image, id, COUNTER, grouped)
    const [id, other] = which === 'first' ? [ids.first, ids.second] : [ids.second, ids.first]
    await until('it counts', () => containerd.output(id).includes('5\n'))
    for (let round = 0; round < 2; round++) {
      const path = await dumped(id, ['--name', `${id}-${round}`])
      const { length } = containerd.output(id)
      await world.ok(['restore', 'containerd', '--path', path])
      await until('it counts on', () => containerd.output(id).length > length + 10 && isCounting(containerd.output(id)))
      expect(await containerd.exec(id, 'echo', 'there')).toBe('there\n')
    }
    const { length } = containerd.output(other)
    await until('the other has not noticed', () => containerd.output(other).length > length && isCounting(containerd.output(other)))
    await containerd.ok('tasks', 'pause', id)
    await containerd.ok('tasks', 'resume', id)
    await containerd.ok('tasks', 'kill', '--signal', 'SIGKILL', id)
    await until('it ends', async () => (await containerd.task(id))?.status !== 'RUNNING')
    for (const one of [id, other]) await containerd.remove(one)
  })
})

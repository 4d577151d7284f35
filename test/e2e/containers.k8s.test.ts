/** Containers of pods, as a kubelet has containerd start them: listed, put under management, frozen, dumped. */
import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { useContainers } from '../support/containers.js'
import { containerdVersion } from '../support/containerd.js'
import { useKubelet } from '../support/cri.js'
import { checkpointctl, hasCheckpointctl, PEERS } from '../support/peers.js'
import { Registry } from '../support/registry.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const world = useWorld()
const containers = useContainers(world)
const kubelet = useKubelet(world)

const COUNT = ['sh', '-c', 'i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done']
const address = (): string[] => ['--address', kubelet.containerd.address]
const last = (output: string): number => Number(output.trim().split('\n').at(-1))

interface Row {
  readonly pod_id: string
  readonly pod_name: string
  readonly container_id: string
}
const query = async (...flags: readonly string[]): Promise<Row[]> =>
  JSON.parse((await world.ok(['query', 'k8s', '-o', 'json', ...address(), ...flags])).stdout) as Row[]

describe('query k8s', () => {
  test('lists containers and sandboxes, of all pods, of a namespace, of a pod', async () => {
    const [web, other] = [await kubelet.pod('web'), await kubelet.pod('other', { namespace: 'kube-system' })]
    const [one, two] = [await web.container('one', ['sleep', '1000']), await web.container('two', ['sleep', '1000'])]
    const three = await other.container('three', ['sleep', '1000'])

    const { stdout } = await world.ok(['query', 'k8s', ...address()])
    const [header, ...rows] = stdout.split('\n')
    expect(header?.split(/ {2,}/)).toEqual(['POD ID', 'POD NAME', 'POD NAMESPACE', 'CONTAINER ID', 'CONTAINER RUNTIME'])
    expect(rows.slice(0, 3).map((row) => row.trim().split(/ {2,}/))).toEqual([
      [web.id, web.name, 'default', one.id, 'containerd'],
      [web.id, web.name, 'default', two.id, 'containerd'],
      [other.id, other.name, 'kube-system', three.id, 'containerd'],
    ])
    const ids = async (...flags: string[]): Promise<string[]> => (await query(...flags)).map(({ container_id: id }) => id)
    expect(await ids('--namespace', 'kube-system')).toEqual([three.id])
    expect(await ids(web.name)).toEqual([one.id, two.id])
    expect(await ids(two.id)).toEqual([two.id])
    expect(await ids('--container-type', 'sandbox')).toEqual([web.id, other.id])
    expect((await world.fails(['query', 'k8s', ...address(), 'nobody'])).stderr).toContain('nobody: no such container or pod')
    const inspected = await world.ok(['query', 'k8s', '--inspect', '-o', 'json', ...address(), one.id])
    expect(JSON.parse(inspected.stdout)).toMatchObject([{ id: one.id, name: 'one', pod_uid: `uid-${web.name}`, status: 'running' }])
  })

  test('a socket that is none, and one without a CRI, are said', async () => {
    expect((await world.fails(['query', 'k8s', '--address', join(world.dir, 'none')])).stderr).toContain(
      'no container runtime can be reached at',
    )
    expect((await world.fails(['query', 'k8s', '--address', world.socket])).stderr).toContain('there is no CRI at')
  })
})

describe.each(['container', 'pod'])('a container of a pod, with the PID namespace of its %s', (pid) => {
  test('is managed, frozen, dumped alive and exported; its pod is what it was', async () => {
    const pod = await kubelet.pod('live', { pid })
    const { id, output } = await pod.container('web', COUNT)
    const jid = world.jid('web')
    await world.ok(['manage', 'k8s', id, '--jid', jid, ...address()])
    await until('it counts', () => output().includes('5\n'))

    expect((await world.ok(['freeze', 'job', jid])).stdout).toContain('Froze k8s PID')
    const { length } = output()
    await new Promise((resolve) => setTimeout(resolve, 200))
    expect(output()).toHaveLength(length)
    await world.ok(['unfreeze', 'job', jid])
    await until('it counts on', () => output().length > length)

    await kubelet.containerd.exec(id, 'sh', '-c', 'echo changed > /file')
    await world.ok(['dump', 'job', jid, '--leave-running', '--rootfs', '--name', `live-${pid}`])
    const before = last(output())
    await until('it counts on after a dump', () => last(output()) > before)
    expect((await query(pod.id)).map((row) => row.container_id)).toEqual([id])

    const archive = join(world.dir, `live-${pid}.tar`)
    await world.ok(['checkpoint', 'export', join(world.checkpoints, `live-${pid}`), archive])
    const { contents } = JSON.parse((await world.ok(['checkpoint', 'inspect', '-o', 'json', archive])).stdout) as { contents: object }
    const described = { id, name: 'web', pod: pod.name, pod_namespace: 'default', engine: 'containerd', image: 'test.local/busybox:1' }
    expect(contents).toMatchObject({ container: described })
    const diff = execFileSync('tar', ['-xOf', archive, 'rootfs-diff.tar'])
    expect(execFileSync('tar', ['-xOf', '-', 'file'], { input: diff, encoding: 'utf8' })).toBe('changed\n')
    await pod.remove()
    await until('the job has ended', async () => (await world.inspect(jid))['is_running'] === false)
  })

  test.skipIf(!hasCheckpointctl)('its archive tells checkpointctl what it is (requires checkpointctl)', async () => {
    const pod = await kubelet.pod('shown', { pid })
    const { id, output } = await pod.container('web', COUNT)
    await until('it counts', () => output().includes('5\n'))
    await world.ok(['dump', 'k8s', id, '--leave-running', '--rootfs', '--name', `shown-${pid}`, ...address()])
    const archive = join(world.dir, `shown-${pid}.tar`)
    await world.ok(['checkpoint', 'export', join(world.checkpoints, `shown-${pid}`), archive])
    const [shown] = JSON.parse(checkpointctl('inspect', '--format', 'json', '--ps-tree', archive)) as [object]
    const tree = { command: 'sh' }
    expect(shown).toMatchObject({ container_name: 'web', id, image: 'test.local/busybox:1', engine: 'containerd', process_tree: tree })
    expect(checkpointctl('inspect', '--metadata', archive)).toMatch(new RegExp(`Pod name: ${pod.name}\n.* namespace: default\n`))
    await pod.remove()
  })

  test('ended by its dump, it comes back as one of runc among the namespaces of its pod', async () => {
    const pod = await kubelet.pod('moved', { pid })
    const { id, output } = await pod.container('web', COUNT)
    await until('it counts', () => output().includes('5\n'))
    await world.ok(['dump', 'k8s', id, '--name', `moved-${pid}`, '--streams', '2', ...address()])
    const count = last(output())

    const bundle = world.work()
    cpSync(kubelet.containerd.busyboxRoot, join(bundle, 'rootfs'), { recursive: true, verbatimSymlinks: true })
    const back = containers.id('back')
    const path = join(world.checkpoints, `moved-${pid}`)
    const restore = ['restore', 'runc', '--path', path, '--id', back, '--bundle', bundle, '--root', containers.root]
    const { stdout } = await world.ok([...restore, '--attachable'])
    const restored = /PID: (\d+)/.exec(stdout)?.[1] ?? ''
    const attached = world.talk(['attach', restored])
    await attached.says(/^\d+\n\d+\n/)
    expect(Number(/^\d+/.exec(attached.stdout)?.[0])).toBeGreaterThanOrEqual(count)
    const pause = await kubelet.pid(pod.id)
    for (const name of ['net', 'ipc', 'uts'])
      expect(readlinkSync(`/proc/${restored}/ns/${name}`)).toBe(readlinkSync(`/proc/${pause}/ns/${name}`))
    expect(await containers.ok('exec', back, 'hostname')).toBe(`${pod.name}\n`)
    await containers.ok('delete', '--force', back)
    await attached.exit
    await pod.remove()
  })
})

describe('a checkpoint of a container of a pod', () => {
  test('comes back as one of containerd that is nobody’s but its own', async () => {
    const { containerd } = kubelet
    const pod = await kubelet.pod('own')
    const { id, output } = await pod.container('web', COUNT)
    await until('it counts', () => output().includes('5\n'))
    await containerd.exec(id, 'sh', '-c', 'echo changed > /file')
    await world.ok(['dump', 'k8s', id, '--name', 'own', '--rootfs', ...address()])
    const path = join(world.checkpoints, 'own')

    expect((await world.fails(['restore', 'k8s', '--path', path, ...address()])).stderr).toMatch(
      /not supported for k8s[^]*restore containerd/,
    )
    expect((await world.fails(['restore', 'containerd', '--path', path, ...address()])).stderr).toContain('is not in namespace default')
    const [back, log] = [containerd.id('own'), join(world.dir, 'own.log')]
    await world.ok(['restore', 'containerd', '--path', path, '--id', back, '--out', log, ...containerd.flags])
    expect(await containerd.exec(back, 'cat', '/file', '/etc/hostname')).toBe(`changed\n${pod.name}\n`)
    await until('it counts on', () => last(readFileSync(log, 'utf8')) > last(output()))
    expect((await query()).map((row) => row.container_id)).not.toContain(back)
    await containerd.ok('tasks', 'kill', '--signal', 'SIGKILL', back)
    await until('it is gone', async () => !(await containerd.containers()).includes(back))
    await pod.remove()
  })
})

/** It was made to be with 2.1, and is to be taken out with 2.4. */
const restores = ([major, minor]: readonly [number, number] = [0, 0]): boolean => major === 2 && minor >= 1 && minor < 4
const isNewer = !restores(containerdVersion()) && restores(containerdVersion(PEERS))

describe.skipIf(!isNewer && !restores(containerdVersion()))('the CRI of a containerd from 2.1 on', () => {
  const node = useKubelet(world, isNewer ? { name: 'newer', programs: PEERS } : { name: 'newer' })

  test('makes archives that are inspected, and restored as a container of runc among the namespaces of their pod', async () => {
    const pod = await node.pod('theirs')
    const { id, output, checkpoint } = await pod.container('web', COUNT)
    await until('it counts', () => output().includes('5\n'))
    await node.containerd.exec(id, 'sh', '-c', 'echo changed > /file')
    const archive = join(world.dir, 'theirs.tar')
    await checkpoint(archive)
    const inspected = JSON.parse((await world.ok(['checkpoint', 'inspect', '-o', 'json', archive])).stdout) as { contents: object }
    const described = { id, name: 'web', pod: pod.name, pod_namespace: 'default', engine: 'containerd', image: node.image }
    expect(inspected.contents).toMatchObject({ container: described })

    // Where it runs on there is no room for another.
    await node.containerd.ok('tasks', 'kill', '--signal', 'SIGKILL', id)
    await until('it has ended', async () => (await node.pid(id)) === 0)
    const bundle = world.work()
    const rootfs = join(bundle, 'rootfs')
    cpSync(node.containerd.busyboxRoot, rootfs, { recursive: true, verbatimSymlinks: true })
    execFileSync('tar', ['-C', rootfs, '-xzf', '-'], { input: execFileSync('tar', ['-xOf', archive, 'rootfs-diff.tar']) })
    const back = containers.id('back')
    const restore = ['restore', 'runc', '--path', archive, '--id', back, '--bundle', bundle, '--root', containers.root]
    const { stdout } = await world.ok([...restore, '--attachable'])
    const attached = world.talk(['attach', /PID: (\d+)/.exec(stdout)?.[1] ?? ''])
    await attached.says(/^\d+\n\d+\n/)
    expect(Number(/^\d+/.exec(attached.stdout)?.[0])).toBeGreaterThanOrEqual(5)
    expect(await containers.ok('exec', back, 'cat', '/file')).toBe('changed\n')
    await containers.ok('delete', '--force', back)
    await attached.exit
    await pod.remove()
  })

  test('restores a checkpoint into a pod, from the image made of it', async () => {
    const { containerd } = node
    const at = ['--address', containerd.address]
    const exported = join(world.dir, 'base.tar')
    // `ctr` now and then leaves the last of it out.
    await until('all of it is exported', async () => {
      await containerd.ok('images', 'export', exported, node.image)
      return spawnSync('tar', ['-tf', exported]).status === 0
    })
    // What is below it comes from a registry, always.
    await using registry = await Registry.open(world.work(), exported)
    const digest = (await containerd.ok('images', 'ls', `name==${node.image}`)).match(/sha256:\w+/)?.[0] ?? ''
    const name = `${registry.host}/busybox`
    for (const image of [`${name}:1`, `${name}@${digest}`]) {
      await containerd.ok('images', 'tag', node.image, image)
      await node.knows(image)
    }
    const pod = await node.pod('cri')
    const { id, output } = await pod.container('web', COUNT, `${name}:1`)
    await until('it counts', () => output().includes('5\n'))
    await containerd.exec(id, 'sh', '-c', 'echo changed > /file')
    await world.ok(['dump', 'k8s', id, '--name', 'cri', '--rootfs', ...at])
    const archive = join(world.dir, 'cri.tar')
    const image = 'localhost/moved:1'
    await world.ok(['checkpoint', 'export', '--format', 'oci-archive', '--image', image, join(world.checkpoints, 'cri'), archive])
    await containerd.ok('images', 'import', archive)
    await node.knows(image)
    const count = last(output())
    const back = await pod.container('again', [], image)
    await until('it counts on', () => last(back.output()) > count)
    expect(Number(back.output().split('\n')[0])).toBe(count + 1)
    expect(await containerd.exec(back.id, 'cat', '/file')).toBe('changed\n')
    await pod.remove()
  })
})

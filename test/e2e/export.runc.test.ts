/** Checkpoint archives that several programs understand: ours, and podman's with a real podman. */
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { useContainerd } from '../support/containerd.js'
import { type Spec, useContainers } from '../support/containers.js'
import { checkpointctl, hasCheckpointctl } from '../support/peers.js'
import { criuPath } from '../support/plain-criu.js'
import { IMAGE, usePodman } from '../support/podman.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const world = useWorld()
const containers = useContainers(world)
const podman = usePodman(world)
const containerd = useContainerd(world, { path: dirname(criuPath()) })

const COUNT = ['sh', '-c', 'i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done']
const root = (): string[] => ['--root', containers.root]
const last = (output: string): number => Number(output.trim().split('\n').at(-1))

interface Inspected {
  readonly manifest: { readonly type?: string }
  readonly contents: { readonly container?: object; readonly processes: readonly { readonly name: string }[] }
}
const inspect = async (which: string): Promise<Inspected> =>
  JSON.parse((await world.ok(['checkpoint', 'inspect', '-o', 'json', which])).stdout) as Inspected

/** Its files, unpacked. */
function extracted(archive: string): string {
  const directory = world.work()
  execFileSync('tar', ['-C', directory, '-xf', archive])
  return directory
}

describe('cedana checkpoint export', () => {
  test.each(['tar', 'tar.gz', 'tar.zst'])(
    'of a container: a %s with all that is in the checkpoint, which cedana restores',
    async (suffix) => {
      const id = containers.id('web')
      const bundle = containers.bundle(id, { args: COUNT })
      const jid = world.jid('web')
      await world.ok(['run', 'runc', id, '--jid', jid, '--bundle', bundle, ...root()])
      const output = () => readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8')
      await until('it counts', () => output().includes('5\n'))
      await world.ok(['dump', 'job', jid, '--compression', suffix === 'tar' ? 'none' : 'lz4'])

      const [{ id: checkpoint }] = JSON.parse((await world.ok(['checkpoints', jid, '-o', 'json'])).stdout) as [{ id: string }]
      const archive = join(world.dir, `web-${suffix}.${suffix}`)
      expect((await world.ok(['checkpoint', 'export', checkpoint, archive])).stdout).toMatch(`Exported to ${archive} (`)
      const files = extracted(archive)
      expect(JSON.parse(readFileSync(join(files, 'config.dump'), 'utf8'))).toMatchObject({ id, name: id, runtime: 'runc' })
      expect(JSON.parse(readFileSync(join(files, 'spec.dump'), 'utf8'))).toEqual(
        JSON.parse(readFileSync(join(bundle, 'config.json'), 'utf8')),
      )

      expect((await world.ok(['checkpoint', 'verify', archive])).stdout).toContain('Verified')
      const { contents, manifest } = await inspect(archive)
      expect(manifest.type).toBe('runc')
      expect(contents.container).toMatchObject({ id, runtime: 'runc', rootfs_diff_bytes: 0 })
      expect(contents.processes[0]?.name).toBe('sh')
      expect((await world.fails(['checkpoint', 'export', checkpoint, archive])).stderr).toContain('already exists')

      const before = last(output())
      await world.ok(['restore', 'job', jid, '--path', archive])
      await until('it counts on', () => last(output()) > before)
      await world.quick(['kill', jid])
    },
  )

  test('as an OCI archive: containerd, podman and skopeo take the image, and give it back to cedana', async () => {
    const id = containers.id('imaged')
    const jid = world.jid('imaged')
    await world.ok(['run', 'runc', id, '--jid', jid, '--bundle', containers.bundle(id, { args: COUNT }), ...root()])
    const output = () => readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8')
    await until('it counts', () => output().includes('5\n'))
    await world.ok(['dump', 'job', jid, '--name', 'imaged'])
    const archive = join(world.dir, 'imaged-oci.tar')
    const image = 'test.local/moved:1'
    const exporting = ['checkpoint', 'export', '--format', 'oci-archive', join(world.checkpoints, 'imaged'), archive, '--image', image]
    expect((await world.ok([...exporting])).stdout).toMatch(`Exported to ${archive} (`)
    expect((await world.ok(['checkpoint', 'verify', archive])).stdout).toContain('Verified')

    await containerd.ok('images', 'import', archive)
    expect(await containerd.ok('images', 'ls', '--quiet')).toContain(image)
    const returned = join(world.dir, 'imaged-ctr.tar')
    await containerd.ok('images', 'export', returned, image)
    await podman.ok('load', '--input', archive)
    const annotations = JSON.parse(await podman.ok('image', 'inspect', '--format', '{{json .Annotations}}', image)) as object
    expect(annotations).toMatchObject({ 'io.kubernetes.cri-o.annotations.checkpoint.name': id, 'org.criu.checkpoint.runtime.name': 'runc' })
    const saved = join(world.dir, 'imaged-podman')
    await podman.ok('save', '--format', 'oci-dir', '--output', saved, image)

    const skopeo = (...args: readonly string[]): string => execFileSync('skopeo', ['--insecure-policy', ...args], { encoding: 'utf8' })
    const copied = join(world.dir, 'imaged-skopeo')
    expect(JSON.parse(skopeo('inspect', `oci-archive:${archive}`))).toMatchObject({ Os: 'linux', Layers: [expect.any(String)] })
    skopeo('copy', '--quiet', `oci-archive:${archive}`, `oci:${copied}:1`)
    expect((await world.ok(['checkpoint', 'verify', copied])).stdout).toContain('Verified')

    for (const path of [returned, saved]) {
      expect((await inspect(path)).contents.container).toMatchObject({ id, runtime: 'runc' })
      const before = last(output())
      await world.ok(['restore', 'job', jid, '--path', path])
      await until('it counts on', () => last(output()) > before)
      await world.ok(path === returned ? ['dump', 'job', jid] : ['kill', jid])
      await until('the runtime has removed its own', () => !containers.known().includes(id))
    }
  })

  test.skipIf(!hasCheckpointctl)('checkpointctl shows what is in it (requires checkpointctl)', async () => {
    const container = containers.container('shown', { args: COUNT })
    await container.run()
    await until('it counts', () => container.output().includes('5\n'))
    await world.ok(['dump', 'runc', container.id, '--name', 'shown', '--compression', 'zstd', ...root()])
    const archive = join(world.dir, 'shown.tar.zst')
    await world.ok(['checkpoint', 'export', join(world.checkpoints, 'shown.tar.zst'), archive])
    expect(checkpointctl('show', archive)).toMatch(/ runc .* containerd /)
    const looks = ['--ps-tree-cmd', '--files', '--mounts', '--sockets', '--metadata']
    const [shown] = JSON.parse(checkpointctl('inspect', '--format', 'json', ...looks, archive)) as [object]
    const files = expect.arrayContaining([{ type: '', fd: 'cwd', path: '/' }]) as unknown
    expect(shown).toMatchObject({
      id: container.id,
      runtime: 'runc',
      process_tree: { pid: 1, command: 'sh', cmdline: `${COUNT.join(' ')} ` },
      file_descriptors: expect.arrayContaining([{ pid: 1, open_files: files }]) as unknown,
    })
    expect(checkpointctl('memparse', archive)).toMatch(/\n1 +sh +\d+\.\d KiB/)
  })

  test('of a process is refused', async () => {
    const job = await world.job('sleep')
    const path = await world.dump(job, ['--leave-running'])
    const { stderr } = await world.fails(['checkpoint', 'export', path, join(world.dir, 'process.tar')])
    expect(stderr).toContain(`${path} is no checkpoint of a container`)
  })

  test('a bundle that has a root file system only is restored with the configuration in the checkpoint', async () => {
    const container = containers.container('moved', { args: COUNT })
    await container.run()
    await until('it counts', () => container.output().includes('5\n'))
    await world.ok(['dump', 'runc', container.id, '--name', 'moved', ...root()])
    const archive = join(world.dir, 'moved.tar')
    await world.ok(['checkpoint', 'export', join(world.checkpoints, 'moved'), archive])
    await container.remove()
    const bundle = world.work()
    execFileSync('cp', ['-a', join(container.bundle, 'rootfs'), bundle])
    const before = last(container.output())
    await world.ok(['restore', 'runc', '--path', archive, '--bundle', bundle])
    await until('it counts on', () => last(container.output()) > before)
    await containers.ok('delete', '--force', container.id)
  })
})

describe('archives of podman', () => {
  /** `podman container checkpoint --export`. */
  async function exported(word: string, flags: readonly string[] = []): Promise<{ name: string; archive: string; count: number }> {
    const name = await podman.run(word, ...COUNT)
    await podman.ok('exec', name, 'sh', '-c', 'echo changed > /file; rm /bin/ps')
    await until('it counts', async () => (await podman.ok('logs', name)).includes('5\n'))
    const archive = join(world.dir, `${name}.tar.zst`)
    await podman.ok('container', 'checkpoint', '--export', archive, ...flags, name)
    const count = last(await podman.ok('logs', name))
    await podman.ok('rm', name)
    return { name, archive, count }
  }

  /** Where its container is mounted things from that only podman had: empty ones of the bundle's own. */
  function replaceMounts(bundle: string, spec: Spec): void {
    mkdirSync(join(bundle, 'mounts'))
    for (const mount of spec.mounts.filter(({ type }) => type === 'bind')) {
      mount.source = join(bundle, 'mounts', mount.destination.replaceAll('/', '_'))
      if (mount.destination === '/dev/shm') mkdirSync(mount.source)
      else writeFileSync(mount.source, `of the bundle\n`)
    }
    spec.root.path = 'rootfs'
    writeFileSync(join(bundle, 'config.json'), JSON.stringify(spec))
  }

  test('are inspected, say what of the outside they lack, and are restored as a container of runc', async () => {
    const { name, archive, count } = await exported('inspect')
    const { contents } = await inspect(archive)
    const container = { name, image: IMAGE, engine: 'podman', runtime: 'runc', deleted_files: ['/bin/ps'] }
    expect(contents.container).toMatchObject(container)
    expect(contents.processes[0]?.name).toBe('sh')
    expect((await world.ok(['checkpoint', 'inspect', archive])).stdout).toMatch(new RegExp(`CONTAINER\n.*\n${name} .* ${IMAGE} `))

    const files = extracted(archive)
    const bundle = podman.bundle(join(files, 'rootfs-diff.tar'))
    const id = containers.id('foreign')
    const restore = ['restore', 'runc', '--path', archive, '--bundle', bundle, '--id', id, ...root()]
    const { stderr } = await world.fails(restore)
    expect(stderr).toMatch(/userdata\/\S+, which is mounted at \S+ of the container, does not exist \(and 3 more/)
    replaceMounts(bundle, JSON.parse(readFileSync(join(files, 'spec.dump'), 'utf8')) as Spec)
    const { stdout } = await world.ok([...restore, '--attachable'])
    expect(await containers.ok('exec', id, 'cat', '/file', '/etc/hosts')).toBe('changed\nof the bundle\n')
    const attached = world.talk(['attach', /PID: (\d+)/.exec(stdout)?.[1] ?? ''])
    await attached.says(/^\d+\n\d+\n/)
    expect(Number(/^\d+/.exec(attached.stdout)?.[0])).toBeGreaterThan(count - 1)
    await containers.ok('delete', '--force', id)
    await attached.exit
  })

  test('go through cedana and back: podman restores what was exported again', async () => {
    // Whose name says something else, as podman lets it.
    const { name, archive, count } = await exported('again', ['--compress', 'gzip'])
    const again = join(world.dir, 'again.tar.gz')
    await world.ok(['checkpoint', 'export', archive, again])
    await podman.ok('container', 'restore', '--import', again)
    await until('it counts on', async () => last(await podman.ok('logs', name)) > count)
    expect(await podman.ok('exec', name, 'cat', '/file')).toBe('changed\n')
  })

  test('come back to podman as an image, which it restores', async () => {
    const { name, archive, count } = await exported('image')
    const oci = join(world.dir, `${name}-oci.tar`)
    await world.ok(['checkpoint', 'export', '--format', 'oci-archive', archive, oci])
    await podman.ok('load', '--input', oci)
    await podman.ok('container', 'restore', `localhost/checkpoint-${name}`)
    await until('it counts on', async () => last(await podman.ok('logs', name)) > count)
    expect(await podman.ok('exec', name, 'cat', '/file')).toBe('changed\n')
  })

  test('a container that podman runs is dumped, and its archive tells what it is', async () => {
    const name = await podman.run('live', ...COUNT)
    const id = (await podman.ok('inspect', '--format', '{{.Id}}', name)).trim()
    await world.ok(['dump', 'runc', id, '--name', 'live', '--leave-running'])
    const archive = join(world.dir, 'live.tar')
    await world.ok(['checkpoint', 'export', join(world.checkpoints, 'live'), archive])
    expect((await inspect(archive)).contents.container).toMatchObject({ id, engine: 'podman' })
  })
})

test('a checkpoint that containerd’s own command made is inspected, and restored as a container of runc', async () => {
  const id = containerd.id('own')
  await containerd.run(await containerd.busybox(), id, COUNT)
  await until('it counts', () => containerd.output(id).includes('5\n'))
  const count = last(containerd.output(id))
  const image = 'test.local/own:1'
  await containerd.ok('containers', 'checkpoint', '--task', '--image', id, image)
  const archive = join(world.dir, 'own.tar')
  await containerd.ok('images', 'export', '--skip-manifest-json', archive, image)
  const { Spec: spec } = JSON.parse(await containerd.ok('containers', 'info', id)) as { Spec: Spec }
  await containerd.remove(id)

  expect((await inspect(archive)).contents.processes[0]?.name).toBe('sh')
  const refused = await world.fails(['restore', 'containerd', '--path', archive, '--id', id, ...containerd.flags])
  expect(refused.stderr).toContain('cedana restore runc --bundle')
  const bundle = world.work()
  cpSync(containerd.busyboxRoot, join(bundle, 'rootfs'), { recursive: true, verbatimSymlinks: true })
  writeFileSync(join(bundle, 'config.json'), JSON.stringify({ ...spec, root: { path: 'rootfs' } }))
  const back = containers.id('back')
  const { stdout } = await world.ok(['restore', 'runc', '--path', archive, '--bundle', bundle, '--id', back, ...root(), '--attachable'])
  const attached = world.talk(['attach', /PID: (\d+)/.exec(stdout)?.[1] ?? ''])
  await attached.says(/^\d+\n\d+\n/)
  expect(Number(/^\d+/.exec(attached.stdout)?.[0])).toBeGreaterThan(count)
  await containers.ok('delete', '--force', back)
  await attached.exit
})

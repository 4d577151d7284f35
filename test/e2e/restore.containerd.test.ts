/** Containers of containerd, dumped and restored as tasks of containerd. */
import { copyFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { type Snapshotter, useContainerd } from '../support/containerd.js'
import { program } from '../support/programs.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const world = useWorld()
const containerd = useContainerd(world)
const other = useContainerd(world, {}, 'other')

/** Counts, and has written each number to a file of its writable layer. */
const COUNTER = 'n=0; echo begun > /var/log/count; while :; do n=$((n+1)); echo $n; echo $n >> /var/log/count; sleep 0.02; done'

interface Counting {
  readonly jid: string
  count(): number
}

async function counting(word: string, flags: readonly string[] = [], snapshotter: Snapshotter = 'overlayfs'): Promise<Counting> {
  const jid = world.jid(word)
  const image = await containerd.busybox({}, snapshotter)
  await world.ok(['run', 'containerd', image, '--jid', jid, ...containerd.flags, ...flags, '--', 'sh', '-c', COUNTER])
  const count = () => Number(readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8').trim().split('\n').at(-1))
  await until('it counts', () => count() > 3)
  return { jid, count }
}

const dump = async (what: readonly string[], flags: readonly string[] = []): Promise<string> =>
  /^Dumped to (.+)$/m.exec((await world.ok(['dump', ...what, ...flags])).stdout)?.[1] ?? ''

describe('a container of containerd', () => {
  test('comes back as its job, and to containerd as a task like any other', async () => {
    const { jid, count } = await counting('again')
    await dump(['job', jid])
    expect(await containerd.task(jid)).toBeUndefined()
    const before = count()
    const { stdout } = await world.ok(['restore', 'job', jid])
    const pid = Number(/^Restored successfully, PID: (\d+)$/m.exec(stdout)?.[1])
    await until('it goes on counting', () => count() > before + 3)
    expect(await containerd.task(jid)).toEqual({ pid, status: 'RUNNING' })
    expect(await containerd.exec(jid, 'head', '-n1', '/var/log/count')).toBe('begun\n')
    await containerd.ok('tasks', 'pause', jid)
    await containerd.ok('tasks', 'resume', jid)
    await containerd.ok('tasks', 'kill', '--signal', 'SIGKILL', jid)
    await until('it ends', async () => (await world.inspect(jid)).is_running === false)
    expect((await world.inspect(jid)).exit).toEqual({ signal: 9 })
    expect(await containerd.containers()).not.toContain(jid)
  })

  test('is made again, with its writable layer, where it is gone', async () => {
    for (const snapshotter of ['overlayfs', 'native'] as const) {
      const { jid } = await counting('gone', ['--snapshotter', snapshotter], snapshotter)
      await containerd.exec(jid, 'sh', '-c', 'echo changed > /etc/passwd; rm /etc/group; mkdir -p /data/deep; echo kept > /data/deep/file')
      const path = await dump(['job', jid], ['--rootfs'])
      expect((await world.ok(['checkpoint', 'verify', path])).stdout).toContain('Verified')
      expect((await world.ok(['checkpoint', 'inspect', path, '-o', 'json'])).stdout).toContain('rootfs-diff.tar')
      await world.quick(['job', 'delete', jid])
      expect(await containerd.containers()).not.toContain(jid)
      const id = containerd.id('other')
      const log = `${world.dir}/${id}.log`
      await world.ok(['restore', 'containerd', '--path', path, '--id', id, '--out', log])
      expect(await containerd.exec(id, 'cat', '/etc/passwd', '/data/deep/file')).toBe('changed\nkept\n')
      expect(await containerd.exec(id, 'sh', '-c', 'ls /etc/group 2>/dev/null || true')).toBe('')
      const lines = async () => (await containerd.exec(id, 'cat', '/var/log/count')).trim().split('\n').slice(1).map(Number)
      const counted = await lines()
      expect(counted).toEqual(counted.map((_, index) => index + 1))
      await until('it goes on', async () => (await lines()).length > counted.length)
      await world.quick(['job', 'kill', '--all', '--yes']).catch(() => containerd.remove(id))
    }
  })

  test.each([
    ['a directory', []],
    ['streams', ['--streams', '2', '--compression', 'zstd']],
  ])('has its memory written into it, from %s', async (_, flags) => {
    const root = world.work()
    copyFileSync(await program('regions', 'static'), join(root, 'regions'))
    const image = await containerd.image('regions', [root], {})
    const jid = world.jid('large')
    await world.ok(['run', 'containerd', image, '--jid', jid, ...containerd.flags, '--', '/regions', 'alone'])
    const output = () => readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8')
    await until('it is ready', () => output().includes('READY'))
    await dump(['job', jid], flags)
    await world.ok(['restore', 'job', jid])
    expect(world.directBytes()).toBeGreaterThan(24 << 20)
    process.kill((await containerd.task(jid))?.pid ?? 0, 'SIGUSR1')
    await until('it has looked', () => /PASS|FAIL/.test(output()))
    expect(output()).toMatch(/^PASS$/m)
  })

  test('goes back to what it had written at the dump, though it went on', async () => {
    const { jid, count } = await counting('back')
    const path = await dump(['job', jid], ['--rootfs', '--leave-running', '--compression', 'zstd'])
    const atDump = count()
    await until('it goes on', () => count() > atDump + 20)
    await containerd.exec(jid, 'touch', '/later')
    await dump(['job', jid])
    await world.ok(['restore', 'job', jid, '--path', path])
    expect(await containerd.exec(jid, 'sh', '-c', 'ls /later 2>/dev/null || true')).toBe('')
    const lines = (await containerd.exec(jid, 'cat', '/var/log/count')).trim().split('\n').slice(1).map(Number)
    expect(lines).toEqual(lines.map((_, index) => index + 1))
    const [layer = ''] = await containerd.writableLayers()
    expect(await containerd.ok('snapshots', 'info', layer)).not.toContain('gc.ref')
    await world.quick(['job', 'kill', jid])
    expect(await containerd.writableLayers()).toEqual([])
  })

  test('gives its writable layer away alone, as a checkpoint and as an image, and runs on', async () => {
    const { jid, count } = await counting('layer')
    await containerd.exec(jid, 'sh', '-c', 'echo new > /motd')
    const image = `test.local/committed:${world.id}`
    const path = await dump(['containerd', jid], [...containerd.flags, '--rootfs-only', '--image', image])
    const before = count()
    await until('it runs on', () => count() > before)
    expect((await containerd.task(jid))?.status).toBe('RUNNING')
    await world.quick(['job', 'kill', jid])
    const made = world.jid('committed')
    await world.ok(['run', 'containerd', image, '--jid', made, ...containerd.flags, '--', 'cat', '/motd'])
    await until('it has ended', async () => (await world.inspect(made)).is_running === false)
    expect(readFileSync(`/var/log/cedana-output-${made}.log`, 'utf8')).toBe('new\n')
    const id = containerd.id('anew')
    await world.ok(['restore', 'containerd', '--path', path, '--id', id])
    expect(await containerd.exec(id, 'cat', '/motd')).toBe('new\n')
    await containerd.remove(id)
  })

  test('that containerd’s own command made is restored as it was, and stays its maker’s', async () => {
    const id = containerd.id('foreign')
    await containerd.run(await containerd.busybox(), id, ['sh', '-c', COUNTER])
    await until('it counts', () => containerd.output(id).includes('3\n'))
    const path = await dump(['containerd', id], [...containerd.flags, '--streams', '2', '--compression', 'lz4'])
    const { stdout } = await world.quick(['checkpoint', 'inspect', '--output', 'json', path])
    expect((JSON.parse(stdout) as { contents: object }).contents).toMatchObject({
      container: { id, engine: 'containerd' },
      processes: expect.arrayContaining([expect.objectContaining({ pid: 1, args: ['sh', '-c', COUNTER] })]) as unknown,
    })
    await world.ok(['restore', 'containerd', '--path', path])
    expect((await containerd.task(id))?.status).toBe('RUNNING')
    const lines = async () => (await containerd.exec(id, 'cat', '/var/log/count')).split('\n').length
    const before = await lines()
    await until('it goes on', async () => (await lines()) > before)
    await containerd.ok('tasks', 'kill', '--signal', 'SIGKILL', id)
    await until('it has ended', async () => (await containerd.task(id)) === undefined)
    expect(await containerd.containers()).toContain(id)
    await containerd.remove(id)
  })

  test('without streams comes back as often as it is dumped', async () => {
    const id = containerd.id('mute')
    await containerd.ok('run', '--detach', '--env', world.mark, await containerd.busybox(), id, 'sh', '-c', COUNTER)
    const count = async () => Number((await containerd.exec(id, 'tail', '-n1', '/var/log/count')).trim())
    await until('it counts', async () => (await count()) > 3)
    // After the first its streams are /dev/null, and not that of the container.
    for (const flags of [[], ['--compression', 'lz4'], []]) {
      const path = await dump(['containerd', id], [...containerd.flags, ...flags])
      await world.ok(['restore', 'containerd', '--path', path])
      const before = await count()
      await until('it goes on', async () => (await count()) > before)
    }
    await containerd.remove(id)
  })

  test('has its bind mounts again, one by a symbolic link too, and its record as it was', async () => {
    const id = containerd.id('linked')
    const outside = world.work()
    mkdirSync(join(outside, 'dir'))
    symlinkSync('dir', join(outside, 'link'))
    const mount = (source: string, at: string, way: string): string[] => [
      '--mount',
      `type=bind,src=${join(outside, source)},dst=${at},options=rbind:${way}`,
    ]
    const flags = [...mount('dir', '/data', 'rw'), ...mount('link', '/linked', 'ro')]
    await containerd.run(await containerd.busybox(), id, ['sh', '-c', `exec 3</linked; ${COUNTER}`], flags)
    const mounts = async (): Promise<unknown> =>
      (JSON.parse(await containerd.ok('containers', 'info', id)) as { Spec: { mounts: unknown } }).Spec.mounts
    const before = await mounts()
    const path = await dump(['containerd', id], [...containerd.flags, '--rootfs'])
    for (const isThere of [true, false]) {
      if (!isThere) await containerd.remove(id)
      await world.ok(['restore', 'containerd', '--path', path])
      expect(await containerd.exec(id, 'sh', '-c', `echo ${String(isThere)} > /data/file; cat /linked/file`)).toBe(`${String(isThere)}\n`)
      expect(await mounts()).toEqual(before)
    }
    await containerd.remove(id)
  })

  test('is refused by a containerd that does not have its image, in words that name it', async () => {
    const { jid } = await counting('elsewhere')
    const path = await dump(['job', jid], ['--rootfs'])
    const { stderr } = await world.fails(['restore', 'containerd', '--path', path, ...other.flags])
    expect(stderr).toMatch(/image test\.local\/busybox:\d+ is not in namespace/)
    expect(await other.containers()).toEqual([])
    const chosen = await world.fails([
      'restore',
      'containerd',
      '--path',
      path,
      '--id',
      containerd.id('chosen'),
      '--image',
      'test.local/none:1',
    ])
    expect(chosen.stderr).toContain('image test.local/none:1 is not in namespace')
    const name = /image (test\.local\/busybox:\d+)/.exec(stderr)?.[1] ?? ''
    await containerd.ok('images', 'export', `${world.dir}/image.tar`, name)
    await other.ok('images', 'import', `${world.dir}/image.tar`)
    const id = other.id('there')
    await world.ok(['restore', 'containerd', '--path', path, '--id', id, ...other.flags])
    expect((await other.task(id))?.status).toBe('RUNNING')
    expect(await other.exec(id, 'head', '-n1', '/var/log/count')).toBe('begun\n')
    await other.remove(id)
    await world.quick(['job', 'delete', jid])
  })

  test('is as it was when a restore of it has failed', async () => {
    const { jid } = await counting('undone')
    const path = await dump(['job', jid])
    const pages = `${path}/pages-1.img`
    const whole = readFileSync(pages)
    writeFileSync(pages, Buffer.from(whole.map((byte, index) => (index === 5000 ? byte ^ 1 : byte))))
    expect((await world.fails(['restore', 'job', jid])).stderr).toContain('pages-1.img')
    expect(await containerd.task(jid)).toBeUndefined()
    expect(await containerd.containers()).toContain(jid)
    writeFileSync(pages, whole)
    await world.ok(['restore', 'job', jid])
    expect(await containerd.exec(jid, 'head', '-n1', '/var/log/count')).toBe('begun\n')
    await world.quick(['job', 'kill', jid])
  })
})

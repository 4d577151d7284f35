import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from 'node:fs'
import { once } from 'node:events'
import { createConnection, type Socket } from 'node:net'
import { dirname, join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { type BundleOptions, subnetOf, useContainers } from '../support/containers.js'
import { isAlive } from '../support/processes.js'
import { program } from '../support/programs.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const world = useWorld()
const containers = useContainers(world)

const COUNT = ['sh', '-c', 'i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done']
const root = (): string[] => ['--root', containers.root]

interface ContainerJob {
  readonly id: string
  readonly jid: string
  readonly bundle: string
  readonly pid: number
  output(): string
  counts(): Promise<void>
}

/** A container as a job of the daemon. */
async function job(word: string, options: BundleOptions = {}, flags: readonly string[] = []): Promise<ContainerJob> {
  const id = containers.id(word)
  const jid = world.jid(word)
  const bundle = containers.bundle(id, { args: COUNT, ...options })
  const { stdout } = await world.ok(['run', 'runc', id, '--jid', jid, '--bundle', bundle, ...root(), ...flags])
  const output = () => readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8')
  const counts = async () => {
    const { length } = output()
    await until(`${id} says more`, () => output().length > length)
  }
  return { id, jid, bundle, pid: Number(/PID (\d+)/.exec(stdout)?.[1]), output, counts }
}

/** Dump and restore of a job; answers the new PID. */
async function throughCheckpoint(
  { jid }: ContainerJob,
  dumpFlags: readonly string[] = [],
  restoreFlags: readonly string[] = [],
): Promise<number> {
  await world.ok(['dump', 'job', jid, ...dumpFlags])
  const { stdout } = await world.ok(['restore', 'job', jid, ...restoreFlags])
  return Number(/PID: (\d+)/.exec(stdout)?.[1])
}

const inside = (id: string, ...command: string[]): Promise<string> => containers.ok('exec', id, ...command)
const sh = (id: string, command: string): Promise<string> => inside(id, 'sh', '-c', command)
const status = async (id: string): Promise<string | undefined> => {
  const { code, stdout } = await containers.command('state', id)
  return code === 0 ? (JSON.parse(stdout) as { status: string }).status : undefined
}
const numbers = (text: string): number[] => text.trim().split('\n').map(Number)
const counted = (text: string): void => expect(numbers(text)).toEqual(numbers(text).map((_, index) => index + 1))

describe('dump and restore of a job', () => {
  test('its memory comes back byte for byte, whatever the compression and the number of streams', async () => {
    const remember = 'x=$(head -c 1000000 /dev/urandom | base64); while :; do echo "$x" | md5sum; usleep 50000; done'
    const one = await job('remembers', { args: ['sh', '-c', remember] })
    for (const compression of ['none', 'tar', 'gzip', 'lz4', 'zlib', 'zstd']) {
      for (const streams of ['0', '3']) {
        await throughCheckpoint(one, ['--compression', compression, '--streams', streams])
        const lines = one.output().split('\n').length
        await until('it has looked again', () => one.output().split('\n').length > lines + 1)
      }
    }
    expect(new Set(one.output().trim().split('\n')).size).toBe(1)
    await world.ok(['kill', one.jid])
  })

  test('it counts on, nothing lost or repeated, as often as one likes; to the runtime it is a container like any other', async () => {
    const one = await job('counts')
    for (let round = 0; round < 3; round++) {
      await one.counts()
      const { stdout } = await world.ok(['dump', 'job', one.jid])
      expect(stdout.trimEnd().split('\n').at(-1)).toMatch(/^Dumped to /)
      expect(isAlive(one.pid)).toBe(false)
      expect(await status(one.id), 'its name is free').toBeUndefined()
      await world.ok(['restore', 'job', one.jid])
      expect(await status(one.id)).toBe('running')
    }
    await one.counts()
    expect(await inside(one.id, 'hostname')).toBe('box\n')
    expect((await containers.ok('list')).split('\n').find((line) => line.startsWith(one.id))).toContain('running')
    await containers.ok('kill', one.id, 'KILL')
    await until('its end is seen', async () => (await world.inspect(one.jid))['is_running'] === false)
    counted(one.output())
    expect(await status(one.id)).toBeUndefined()
  })

  test('--leave-running; then the checkpoint under another id next to the original', async () => {
    const one = await job('twin')
    await one.counts()
    const path = /Dumped to (.*)/.exec((await world.ok(['dump', 'runc', one.id, '--leave-running', ...root()])).stdout)?.[1] ?? ''
    await one.counts()
    expect(isAlive(one.pid)).toBe(true)
    const twin = containers.id('twin')
    const restore = ['restore', 'runc', '--path', path, ...root()]
    expect((await world.fails([...restore, '--bundle', one.bundle])).stderr).toContain(`container ${one.id} exists already`)
    const shared = await world.fails([...restore, '--bundle', one.bundle, '--id', twin])
    expect(shared.stderr).toMatch(/the cgroup \S+ \(cgroupsPath of config.json\) has process(es)? /)
    const chosen = await world.cedana([...restore, '--bundle', one.bundle, '--id', twin, '--dry-run', '--manage-cgroups-mode', 'soft'])
    expect(chosen.stdout).toContain('no mode of manage_cgroups can be chosen')
    // Whose configuration names a cgroup of its own.
    const talk = world.talk([...restore, '--bundle', containers.bundle(twin), '--id', twin, '--attach'])
    await talk.says(/^\d+$/m)
    expect([await status(one.id), await status(twin)]).toEqual(['running', 'running'])
    expect(await inside(twin, 'hostname')).toBe('box\n')
    await containers.ok('pause', twin)
    await one.counts()
    await containers.ok('resume', twin)
    await containers.ok('pause', one.id)
    const { length } = talk.stdout
    await until('the other goes on', () => talk.stdout.length > length)
    await containers.ok('resume', one.id)
    await containers.ok('kill', twin, 'KILL')
    expect((await talk.exit).code).not.toBe(0)
    await until('[must] the restored one is gone from the runtime', async () => (await status(twin)) === undefined)
    await one.counts()
    await world.ok(['kill', one.jid])
  })

  test.each(['tar', 'gzip', 'lz4', 'zstd'])('as an archive: %s', async (compression) => {
    const one = await job('archive')
    await one.counts()
    await throughCheckpoint(one, ['--compression', compression])
    await one.counts()
    await world.ok(['kill', one.jid])
    counted(one.output())
  })

  test.each(['none', 'lz4', 'zstd'])('in several streams: %s', async (compression) => {
    const one = await job('streams')
    await one.counts()
    await throughCheckpoint(one, ['--streams', '2', '--compression', compression])
    await one.counts()
    await world.ok(['kill', one.jid])
    counted(one.output())
  })

  test('the exit code after a restore; the attached output goes on', async () => {
    const one = await job('code', { args: ['sh', '-c', 'read line; echo got $line; exit 5'] }, ['--attachable'])
    await world.ok(['dump', 'job', one.jid])
    const talk = world.talk(['restore', 'job', one.jid, '--attach'])
    talk.type('it\n')
    await talk.says(/got it/)
    expect((await talk.exit).code).toBe(5)
    expect((await world.inspect(one.jid))['exit']).toMatchObject({ code: 5 })
    expect(await status(one.id)).toBeUndefined()
  })

  test('a flipped bit is found before anything of the container runs', async () => {
    const one = await job('flip')
    await one.counts()
    const path = /Dumped to (.*)/.exec((await world.ok(['dump', 'job', one.jid])).stdout)?.[1] ?? ''
    const pages = join(path, readdirSync(path).find((name) => name.startsWith('pages-')) ?? '')
    const bytes = readFileSync(pages)
    bytes[1000] = (bytes[1000] ?? 0) ^ 1
    writeFileSync(pages, bytes)
    expect((await world.fails(['restore', 'job', one.jid])).stderr).toMatch(/pages-\d+.img has changed content/)
    expect(await status(one.id)).toBeUndefined()
    expect((await world.row(one.jid))?.[3]).toBe('halted')
  })
})

describe('memory that is not restored by CRIU', () => {
  type Change = NonNullable<BundleOptions['change']>
  const large = async (word: string, change: Change = () => undefined): Promise<ContainerJob> => {
    const regions = await program('regions', 'static')
    const one = await job(word, {
      args: ['/programs/regions', 'alone'],
      change: (spec) => {
        spec.mounts.push({ destination: '/programs', type: 'bind', source: dirname(regions), options: ['rbind', 'ro'] })
        change(spec)
      },
    })
    await until('it is ready', () => one.output().includes('READY'))
    return one
  }
  const verify = async (one: ContainerJob, pid: number): Promise<void> => {
    process.kill(pid, 'SIGUSR1')
    await until('it has looked', () => /PASS|FAIL/.test(one.output()))
    expect(one.output()).toMatch(/^PASS$/m)
  }

  test.each([
    ['a directory', []],
    ['streams', ['--streams', '2', '--compression', 'lz4']],
  ])('is written into the container from %s, and damage is found before anything of it runs', async (_, flags) => {
    const one = await large('direct')
    const path = /Dumped to (.*)/.exec((await world.ok(['dump', 'job', one.jid, ...flags])).stdout)?.[1] ?? ''
    const pages = join(path, readdirSync(path).find((name) => /^(pages-|img-1)/.test(name)) ?? '')
    const whole = readFileSync(pages)
    const bytes = Buffer.from(whole)
    const at = Math.floor(bytes.length / 2)
    bytes[at] = (bytes[at] ?? 0) ^ 1
    writeFileSync(pages, bytes)
    expect((await world.refuses(['restore', 'job', one.jid])).stderr).toContain('damaged')
    expect(await status(one.id)).toBeUndefined()
    writeFileSync(pages, whole)
    const { stdout } = await world.ok(['restore', 'job', one.jid])
    expect(world.directBytes()).toBeGreaterThan(24 << 20)
    await verify(one, Number(/PID: (\d+)/.exec(stdout)?.[1]))
  })

  test('is written into the container from an image of the OCI, all of which is compared with its digest', async () => {
    const one = await large('image')
    await world.ok(['dump', 'job', one.jid, '--name', 'image'])
    const archive = join(world.dir, 'image.tar')
    await world.ok(['checkpoint', 'export', '--format', 'oci-archive', join(world.checkpoints, 'image'), archive])
    const whole = readFileSync(archive)
    const bytes = Buffer.from(whole)
    const at = Math.floor(bytes.length / 2)
    bytes[at] = (bytes[at] ?? 0) ^ 1
    writeFileSync(archive, bytes)
    const { stderr } = await world.refuses(['restore', 'job', one.jid, '--path', archive])
    expect(stderr).toMatch(/blobs\/sha256\/\w+ has changed content/)
    expect(await status(one.id)).toBeUndefined()
    writeFileSync(archive, whole)
    const { stdout } = await world.ok(['restore', 'job', one.jid, '--path', archive])
    expect(world.directBytes()).toBeGreaterThan(24 << 20)
    await verify(one, Number(/PID: (\d+)/.exec(stdout)?.[1]))
  })

  test('is, where nobody can be told that the tree is there: a PID namespace of the outside', async () => {
    const holder = containers.container('holder', { args: ['sh', '-c', 'while :; do sleep 0.1; done'] })
    const path = `/proc/${await holder.run()}/ns/pid`
    const one = await large('shared', (spec) => {
      spec.linux.namespaces = [...spec.linux.namespaces.filter(({ type }) => type !== 'pid'), { type: 'pid', path }]
    })
    const pid = await throughCheckpoint(one)
    expect(world.directBytes()).toBe(0)
    await verify(one, pid)
    await holder.remove()
  })
})

describe('what a container is made of', () => {
  test('a read-only root file system, a tmpfs with files, masked paths, memory, several processes with a pipe between them', async () => {
    const program =
      'mkfifo /tmp/pipe; (while :; do echo tick; usleep 50000; done) > /tmp/pipe & while read word; do echo $word; done < /tmp/pipe'
    const one = await job('parts', {
      args: ['sh', '-c', program],
      readonly: true,
      change: (spec) => spec.mounts.push({ destination: '/tmp', type: 'tmpfs', source: 'tmpfs', options: ['size=8m', 'mode=1777'] }),
    })
    await one.counts()
    await sh(one.id, 'echo kept > /tmp/file; mkdir /tmp/dir; ln -s file /tmp/link')
    await throughCheckpoint(one)
    await one.counts()
    expect(await sh(one.id, 'cat /tmp/link; ls -d /tmp/dir')).toBe('kept\n/tmp/dir\n')
    expect((await containers.command('exec', one.id, 'touch', '/file')).code).not.toBe(0)
    expect(await sh(one.id, 'wc -c < /proc/keys')).toBe('0\n')
    await world.ok(['kill', one.jid])
  })

  test('bind mounts of files and directories, [must] also those that CEDANA_PERSISTENT_MOUNTS names', async () => {
    const outside = world.work()
    mkdirSync(join(outside, 'dir'))
    writeFileSync(join(outside, 'file'), 'from outside\n')
    symlinkSync('dir', join(outside, 'link'))
    const one = await job('binds', {
      args: ['sh', '-c', 'exec 3<>/data/state; i=0; while :; do i=$((i+1)); echo $i >&3; echo $i; usleep 20000; done'],
      change: (spec) => {
        spec.process.env.push('CEDANA_PERSISTENT_MOUNTS=/data')
        spec.mounts.push({ destination: '/data', type: 'bind', source: join(outside, 'dir'), options: ['rbind', 'rw'] })
        spec.mounts.push({ destination: '/etc/outside', type: 'bind', source: join(outside, 'file'), options: ['bind', 'ro'] })
        spec.mounts.push({ destination: '/linked', type: 'bind', source: join(outside, 'link'), options: ['rbind', 'ro'] })
      },
    })
    await one.counts()
    await throughCheckpoint(one)
    await one.counts()
    expect(await sh(one.id, 'cat /etc/outside')).toBe('from outside\n')
    await sh(one.id, 'echo written > /data/new')
    expect(await sh(one.id, 'cat /linked/new')).toBe('written\n')
    expect(readFileSync(join(outside, 'dir/new'), 'utf8')).toBe('written\n')
    await world.ok(['kill', one.jid])
    counted(readFileSync(join(outside, 'dir/state'), 'utf8'))
  })

  test('limits of its cgroup and its device rules are what they were', async () => {
    const one = await job('limits', {
      change: (spec) => {
        spec.linux['resources'] = { devices: [{ allow: false, access: 'rwm' }], pids: { limit: 33 }, memory: { limit: 64 << 20 } }
      },
    })
    const files = ['pids/pids.max', 'memory/memory.limit_in_bytes', 'devices/devices.list']
    const look = (pid: number) => files.map((name) => readCgroup(pid, name))
    const before = look(one.pid)
    expect(before.slice(0, 2)).toEqual(['33\n', `${64 << 20}\n`])
    expect(look(await throughCheckpoint(one))).toEqual(before)
    await world.ok(['kill', one.jid])
  })

  test('what `runc exec` started is in the way, and said by its PID; without it the dump works', async () => {
    const one = await job('exec')
    const exec = containers.command('exec', one.id, 'sleep', '1000')
    await until('it runs', async () => (await sh(one.id, 'ps')).includes('sleep 1000'))
    const { stderr } = await world.fails(['dump', 'job', one.jid, '--leave-running'])
    const [, stranger] = /process (\d+) of the container is not below its first one/.exec(stderr) ?? []
    expect(stderr).toContain('end what was started by `runc exec`')
    expect((await world.fails(['dump', 'job', one.jid])).stderr).toContain(`process ${stranger} of`)
    expect(await sh(one.id, 'ps')).toContain('sleep 1000')
    await one.counts()
    process.kill(Number(stranger), 'SIGKILL')
    await exec
    await throughCheckpoint(one)
    await one.counts()
    await world.ok(['kill', one.jid])
  })

  test('what `runc exec` left behind, and the container’s first process has inherited, is dumped and restored with it', async () => {
    const one = await job('left')
    await sh(one.id, '(i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done) < /dev/null > /tmp/other 2>&1 &')
    const other = (): string => readFileSync(join(one.bundle, 'rootfs/tmp/other'), 'utf8')
    const bothCount = async (): Promise<void> => {
      const { length } = other()
      await Promise.all([one.counts(), until('the other counts', () => other().length > length)])
    }
    await bothCount()
    await world.ok(['dump', 'job', one.jid, '--leave-running'])
    await bothCount()
    await throughCheckpoint(one)
    await bothCount()
    await world.ok(['kill', one.jid])
    counted(one.output())
    counted(other())
  })

  test('what `runc exec` is still running stands still and goes on with the container', async () => {
    const one = await job('beside')
    const exec = containers.command('exec', one.id, 'sh', '-c', 'i=0; while :; do i=$((i+1)); echo $i >> /tmp/other; usleep 20000; done')
    const path = join(one.bundle, 'rootfs/tmp/other')
    const other = (): string => (existsSync(path) ? readFileSync(path, 'utf8') : '')
    await until('it counts', () => other() !== '')
    await world.ok(['freeze', 'job', one.jid])
    const its = other()
    await new Promise((resolve) => setTimeout(resolve, 200))
    expect(other()).toBe(its)
    await world.ok(['unfreeze', 'job', one.jid])
    await Promise.all([one.counts(), until('the other counts on', () => other().length > its.length)])
    await world.ok(['kill', one.jid])
    expect((await exec).code).not.toBe(0)
  })

  test('a container whose output is a file of the outside, put under management', async () => {
    const container = containers.container('file', { args: COUNT })
    await container.run()
    const jid = world.jid('file')
    await world.ok(['manage', 'runc', container.id, '--jid', jid, ...root()])
    await until('it counts', () => container.output().includes('5\n'))
    await world.ok(['dump', 'job', jid])
    const { length } = container.output()
    await world.ok(['restore', 'job', jid])
    await until('it counts on in the same file', () => container.output().length > length)
    // The file is longer than at the dump by now.
    const path = /Dumped to (.*)/.exec((await world.ok(['dump', 'job', jid, '--leave-running'])).stdout)?.[1] ?? ''
    const after = container.output().length
    await until('it counts on after a dump', () => container.output().length > after)
    await world.ok(['kill', jid])
    const before = container.output().split('\n').length
    await world.ok(['restore', 'job', jid, '--path', path])
    await until('it counts on from there', () => container.output().split('\n').length > before)
    await world.ok(['kill', jid])
  })
})

describe('a network namespace of its own', () => {
  /** What a network plugin does: a veth pair, one end in the container. */
  const connect = (pid: number, subnet: string, outside: string, options: { bridge?: string } = {}): void => {
    const ip = (...args: string[]) => execFileSync('ip', args)
    const inside = (...args: string[]) => execFileSync('nsenter', ['--target', String(pid), '--net', 'ip', ...args])
    ip('link', 'add', outside, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', String(pid))
    if (options.bridge === undefined) ip('address', 'add', `${subnet}.1/24`, 'dev', outside)
    else ip('link', 'set', outside, 'master', options.bridge)
    ip('link', 'set', outside, 'up')
    inside('address', 'add', `${subnet}.2/24`, 'dev', 'eth0')
    for (const device of ['lo', 'eth0']) inside('link', 'set', device, 'up')
    inside('route', 'add', 'default', 'via', `${subnet}.1`)
  }
  const look = (id: string): Promise<string> => sh(id, 'ip address show eth0 | grep -v valid_lft | sed "s/@.*//; s/^[0-9]*: //"; ip route')

  test('its veth, addresses and routes are as they were, and an established TCP connection goes on', async () => {
    const one = await job('tcp', { args: ['nc', '-l', '-p', '7000', '-e', 'cat'] })
    const [subnet, device] = [subnetOf(world, 1), `cv${world.id.slice(0, 6)}`]
    connect(one.pid, subnet, device)
    const socket = await connected(7000, `${subnet}.2`)
    expect(await echo(socket, 'before')).toBe('before')
    const before = await look(one.id)
    await throughCheckpoint(one)
    expect(await echo(socket, 'after')).toBe('after')
    expect(await look(one.id)).toBe(before)
    socket.destroy()
    await until('the server has seen the end', async () => (await world.inspect(one.jid))['is_running'] === false)
  })

  test('on a bridge; a bridge or a name that is in the way is said beforehand; --netns-eth0-ipv4-addr', async () => {
    const [bridge, device, subnet] = [`cb${world.id.slice(0, 6)}`, `cw${world.id.slice(0, 6)}`, subnetOf(world, 2)]
    execFileSync('ip', ['link', 'add', bridge, 'type', 'bridge'])
    try {
      execFileSync('ip', ['address', 'add', `${subnet}.1/24`, 'dev', bridge])
      execFileSync('ip', ['link', 'set', bridge, 'up'])
      const one = await job('bridge')
      connect(one.pid, subnet, device, { bridge })
      const path = /Dumped to (.*)/.exec((await world.ok(['dump', 'runc', one.id, '--leave-running', ...root()])).stdout)?.[1] ?? ''
      const twin = containers.id('twin')
      const other = ['restore', 'runc', '--path', path, '--id', twin, '--bundle', containers.bundle(twin)]
      expect((await world.fails(other)).stderr).toContain(`network device ${device}, the other end of the container's eth0, exists already`)
      await throughCheckpoint(one, [], ['--netns-eth0-ipv4-addr', `${subnet}.9`])
      expect(await look(one.id)).toContain(`inet ${subnet}.9/24`)
      expect(execFileSync('ip', ['link', 'show', device], { encoding: 'utf8' })).toContain(`master ${bridge}`)
      await world.ok(['dump', 'job', one.jid])
    } finally {
      execFileSync('ip', ['link', 'delete', bridge])
    }
    const jid = (await world.ps()).find((row) => row[0]?.includes('bridge'))?.[0] ?? ''
    expect((await world.fails(['restore', 'job', jid])).stderr).toContain(`bridge ${bridge}`)
  })
})

const connected = async (port: number, host: string): Promise<Socket> => {
  let socket: Socket | undefined
  await until('it answers', async () => {
    const tried = createConnection({ port, host })
    const isThere = await new Promise<boolean>((resolve) => {
      tried.once('connect', () => resolve(true))
      tried.once('error', () => resolve(false))
    })
    if (isThere) socket = tried
    return isThere
  })
  return socket!
}
const echo = async (socket: Socket, text: string): Promise<string> => {
  socket.write(text)
  const [chunk] = (await once(socket, 'data', { signal: AbortSignal.timeout(10_000) })) as [Buffer]
  return chunk.toString()
}

describe('namespaces of the outside', () => {
  const names: string[] = []
  afterEach(() => {
    for (const name of names.splice(0)) execFileSync('ip', ['netns', 'delete', name])
  })
  const netns = (): string => {
    const name = `ct-${world.id}-${names.length}`
    execFileSync('ip', ['netns', 'add', name])
    names.push(name)
    return `/run/netns/${name}`
  }
  /** A process that holds one namespace of each kind asked for. */
  const withPath = (type: string, path: string) => (spec: { linux: { namespaces: { type: string; path?: string }[] } }) => {
    spec.linux.namespaces = [...spec.linux.namespaces.filter((one) => one.type !== type), { type, path }]
  }

  test('[must] network', async () => {
    const path = netns()
    const one = await job('net', { change: withPath('network', path) })
    const inode = await inside(one.id, 'readlink', '/proc/self/ns/net')
    await throughCheckpoint(one)
    await one.counts()
    expect(await inside(one.id, 'readlink', '/proc/self/ns/net')).toBe(inode)
    await world.ok(['dump', 'job', one.jid])
    for (const name of names.splice(0)) execFileSync('ip', ['netns', 'delete', name])
    expect((await world.fails(['restore', 'job', one.jid])).stderr).toContain(`external namespace file ${path} (network) does not exist`)
  })

  test.each(['pid', 'ipc', 'uts'])('[must] %s', async (type) => {
    // Whose first process reaps what ends in its namespace.
    const holder = containers.container('holder', { args: ['sh', '-c', 'while :; do sleep 0.1; done'] })
    const pid = await holder.run()
    const one = await job(type, { change: withPath(type, `/proc/${pid}/ns/${type}`) })
    await one.counts()
    const inode = await inside(one.id, 'readlink', `/proc/self/ns/${type}`)
    await throughCheckpoint(one)
    await one.counts()
    expect(await inside(one.id, 'readlink', `/proc/self/ns/${type}`)).toBe(inode)
    await world.ok(['kill', one.jid])
    await holder.remove()
  })

  test('all of them, and files of the outside, together', async () => {
    const holder = containers.container('holder', { args: ['sh', '-c', 'while :; do sleep 0.1; done'] })
    const pid = await holder.run()
    const outside = world.work()
    writeFileSync(join(outside, 'file'), 'of the outside\n')
    const paths: Record<string, string> = { network: netns() }
    for (const type of ['pid', 'ipc', 'uts']) paths[type] = `/proc/${pid}/ns/${type}`
    const one = await job('all', {
      change: (spec) => {
        for (const [type, path] of Object.entries(paths)) withPath(type, path)(spec)
        spec.mounts.push({ destination: '/outside', type: 'bind', source: outside, options: ['rbind', 'rw'] })
      },
    })
    await one.counts()
    const look = () =>
      inside(one.id, 'sh', '-c', 'readlink /proc/self/ns/net /proc/self/ns/pid /proc/self/ns/ipc /proc/self/ns/uts; cat /outside/file')
    const before = await look()
    await throughCheckpoint(one)
    await one.counts()
    expect(await look()).toBe(before)
    await world.ok(['kill', one.jid])
    await holder.remove()
  })

  test('[must] a cgroup namespace dumps, and its restore says why it cannot', async () => {
    // From the root of every hierarchy: CRIU cannot look above the root of a namespace.
    const command =
      'for procs in /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs; do [ ! -e $procs ] || echo $$ > $procs; done; exec unshare --cgroup sleep 1000'
    const holder = spawn('sh', ['-c', command], { stdio: 'ignore' })
    const namespace = `/proc/${holder.pid}/ns/cgroup`
    await until('it has one', () => readlinkSync(namespace) !== readlinkSync('/proc/self/ns/cgroup'))
    const one = await job('cgroup', { change: withPath('cgroup', namespace) })
    await world.ok(['dump', 'job', one.jid])
    expect((await world.fails(['restore', 'job', one.jid])).stderr).toContain('CRIU does not support joining cgroup namespace')
    holder.kill()
  })
})

/** `pid`: of a process in the cgroup. */
const readCgroup = (pid: number, name: string): string => {
  const [controller = '', file = ''] = name.split('/')
  const line = readFileSync(`/proc/${pid}/cgroup`, 'utf8')
    .split('\n')
    .find((one) => one.split(':')[1] === controller)
  return readFileSync(join('/sys/fs/cgroup', controller, line?.split(':')[2] ?? '', file), 'utf8')
}

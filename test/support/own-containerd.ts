/**
 * A real containerd with everything of its own: root, state, socket, namespace; images made here and imported, without a network. At the end all of
 * it goes; what then is still there (containers, shims, mounts, cgroups, state) is said.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { killMarked, markedProcesses } from './processes.js'
import { until } from './wait.js'

const BUSYBOX = '/bin/busybox'
const CGROUPS = '/sys/fs/cgroup'
/** Where containerd's shims have runc keep its state, whatever containerd's own directories are. */
const RUNC_ROOT = '/run/containerd/runc'
/** Of plugins that are not needed, or that look for what most machines do not have. */
const UNUSED = [
  'io.containerd.snapshotter.v1.aufs',
  'io.containerd.snapshotter.v1.btrfs',
  'io.containerd.snapshotter.v1.devmapper',
  'io.containerd.snapshotter.v1.zfs',
  'io.containerd.tracing.processor.v1.otlp',
]
const CRI = 'io.containerd.grpc.v1.cri'
/** Image of the sandboxes of pods. */
export const PAUSE = 'test.local/pause:1'

export type Snapshotter = 'overlayfs' | 'native'

export interface ContainerdOptions {
  /** With the plugin that kubelets talk to, in the namespace of those. Default: without. */
  readonly cri?: boolean
  /** In front of the PATH of containerd and its shims: where its own `runc restore` would find criu. Default: nothing. */
  readonly path?: string
  /** Directory of its programs. Default: those that are found. */
  readonly programs?: string
  /** Where it keeps content, snapshots and its database. Default: in its own directory. */
  readonly root?: string
}

/** The configuration of an image, as in its OCI config. */
export interface ImageConfig {
  readonly Env?: readonly string[]
  readonly Entrypoint?: readonly string[]
  readonly Cmd?: readonly string[]
  readonly WorkingDir?: string
  readonly User?: string
  readonly StopSignal?: string
  readonly Labels?: Readonly<Record<string, string>>
}

/** What surrounds it: a World, or as much of one. */
export interface Surroundings {
  readonly dir: string
  readonly id: string
  /** A line of the environment of every container, by which its processes are known. */
  readonly mark: string
}

export interface CtrOutcome {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** 1.6 is [1, 6]; undefined where there is none. `programs`: as above. */
export function containerdVersion(programs?: string): readonly [number, number] | undefined {
  const program = programs === undefined ? 'containerd' : join(programs, 'containerd')
  if (programs !== undefined && !existsSync(program)) return undefined
  const [, major, minor] = /\sv?(\d+)\.(\d+)\S*/.exec(execFileSync(program, ['--version'], { encoding: 'utf8' })) ?? []
  return [Number(major), Number(minor)]
}

export class TestContainerd {
  readonly address: string
  readonly namespace: string
  /** Below which the cgroups of its containers are. */
  readonly cgroup: string
  readonly #dir: string
  readonly #mark: string
  #daemon: ChildProcess | undefined
  #count = 0

  constructor(
    readonly world: Surroundings,
    readonly options: ContainerdOptions = {},
    /** Of several in one world. */
    name = 'ctd',
  ) {
    this.#dir = join(world.dir, name)
    this.address = join(this.#dir, 'sock')
    this.cgroup = `${name}-${world.id}`
    this.namespace = options.cri === true ? 'k8s.io' : this.cgroup
    this.#mark = `CEDANA_TEST_CONTAINERD=${this.cgroup}`
  }

  get log(): string {
    return join(this.#dir, 'log')
  }
  /** What names it to cedana. */
  get flags(): string[] {
    return ['--address', this.address, '--namespace', this.namespace]
  }
  /** Where the runc of its shims keeps its state. */
  get runcRoot(): string {
    return join(this.options.cri === true ? this.#criRuncRoot : RUNC_ROOT, this.namespace)
  }
  get #criRuncRoot(): string {
    return join(this.#dir, 'runc')
  }
  /** Programs and configuration of the network of pods. */
  get cni(): string {
    return join(this.#dir, 'cni')
  }
  get pid(): number {
    return this.#daemon?.pid ?? 0
  }

  /** An id nobody else uses. */
  id(word: string): string {
    return `${word}-${this.world.id}-${++this.#count}`
  }

  async open(): Promise<void> {
    mkdirSync(this.#dir, { recursive: true })
    const disabled = this.options.cri === true ? UNUSED : [...UNUSED, CRI]
    const config = `version = 2
root = "${this.options.root ?? join(this.#dir, 'root')}"
state = "${this.#dir}/state"
disabled_plugins = ${JSON.stringify(disabled)}
[grpc]
address = "${this.address}"
${this.options.cri === true ? this.#criConfig : ''}`
    writeFileSync(join(this.#dir, 'config.toml'), config)
    await this.start()
  }

  get #criConfig(): string {
    return `[plugins."${CRI}"]
sandbox_image = "${PAUSE}"
disable_apparmor = true
# A lower one takes CAP_SYS_RESOURCE.
restrict_oom_score_adj = true
[plugins."${CRI}".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."${CRI}".containerd.runtimes.runc.options]
Root = "${this.#criRuncRoot}"
[plugins."${CRI}".cni]
bin_dir = "${this.cni}/bin"
conf_dir = "${this.cni}/conf"
`
  }

  async start(): Promise<void> {
    const log = openSync(this.log, 'a')
    const [, variable = '', value = ''] = /^([^=]*)=(.*)$/.exec(this.#mark) ?? []
    const path = [this.options.programs, this.options.path, process.env.PATH].filter((one) => one !== undefined).join(':')
    const daemon = spawn(this.#program('containerd'), ['--config', join(this.#dir, 'config.toml')], {
      // Not the mark of the world: that is for what cedana starts.
      // What it unpacks a checkpoint of its own into stays there.
      env: { PATH: path, TMPDIR: this.#dir, [variable]: value },
      detached: true,
      stdio: ['ignore', log, log],
    })
    closeSync(log)
    this.#daemon = daemon
    await until('containerd answers', async () => {
      if (daemon.exitCode !== null) throw new Error(`containerd ended at its start:\n${readFileSync(this.log, 'utf8').slice(-2000)}`)
      return existsSync(this.address) && (await this.ctr('version')).code === 0
    })
  }

  /** Its containers run on, held by their shims. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const daemon = this.#daemon
    this.#daemon = undefined
    if (daemon === undefined || daemon.exitCode !== null || daemon.signalCode !== null) return
    const ended = once(daemon, 'exit')
    daemon.kill(signal)
    await ended
  }

  async restart(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.stop(signal)
    await this.start()
  }

  #program(name: string): string {
    return this.options.programs === undefined ? name : join(this.options.programs, name)
  }

  // --- its own command ---

  async ctr(...args: readonly string[]): Promise<CtrOutcome> {
    const child = spawn(this.#program('ctr'), ['--address', this.address, '--namespace', this.namespace, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
    const [code] = (await once(child, 'close')) as [number | null]
    return { code: code ?? 137, stdout, stderr }
  }

  /** As `ctr`, and throws unless it ends with 0. */
  async ok(...args: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await this.ctr(...args)
    if (code !== 0) throw new Error(`ctr ${args.join(' ')} failed (exit ${code}): ${stderr || stdout}`)
    return stdout
  }

  /** `ctr run --detach`, answers the PID of its init. `flags`: of ctr. */
  async run(image: string, id: string, args: readonly string[], flags: readonly string[] = []): Promise<number> {
    const output = join(this.#dir, `${id}.log`)
    await this.ok('run', '--detach', '--log-uri', `file://${output}`, '--env', this.world.mark, ...flags, image, id, ...args)
    return (await this.task(id))?.pid ?? 0
  }

  /** What a container of `run` has written. */
  output(id: string): string {
    const path = join(this.#dir, `${id}.log`)
    return existsSync(path) ? readFileSync(path, 'utf8') : ''
  }

  /** A row of `ctr tasks ls`. */
  async task(id: string): Promise<{ pid: number; status: string } | undefined> {
    for (const line of (await this.ok('tasks', 'ls')).split('\n')) {
      const [task, pid, status] = line.trim().split(/\s+/)
      if (task === id) return { pid: Number(pid), status: status ?? '' }
    }
    return undefined
  }

  /** What a program in a container prints, on either stream. By a file: `ctr` stops to copy when the program has ended, whatever has come by then. */
  async exec(id: string, ...args: readonly string[]): Promise<string> {
    const name = `exec-${++this.#count}`
    const output = join(this.#dir, name)
    await this.ok('tasks', 'exec', '--exec-id', name, '--log-uri', `file://${output}`, id, ...args)
    return readFileSync(output, 'utf8')
  }

  async containers(): Promise<string[]> {
    return (await this.ok('containers', 'ls', '--quiet')).split('\n').filter(Boolean)
  }

  /** Keys of snapshots that are somebody's writable layer. */
  async writableLayers(snapshotter: Snapshotter = 'overlayfs'): Promise<string[]> {
    const rows = (await this.ok('snapshots', '--snapshotter', snapshotter, 'ls')).split('\n').slice(1)
    return rows.map((row) => row.trim().split(/\s+/)).flatMap((cells) => (cells.at(-1) === 'Active' ? [cells[0] ?? ''] : []))
  }

  /** Task, container and writable layer, whatever state they are in. */
  async remove(id: string): Promise<void> {
    await this.ctr('tasks', 'rm', '--force', id)
    await this.ctr('containers', 'rm', id)
  }

  // --- images ---

  /** Files of the image of `busybox`, when there is one. */
  get busyboxRoot(): string {
    return join(this.#dir, 'busybox')
  }

  /** An image of busybox, whose programs are marked as the world's. Answers its name. */
  busybox(config: ImageConfig = {}, snapshotter: Snapshotter = 'overlayfs'): Promise<string> {
    const root = this.busyboxRoot
    if (!existsSync(root)) makeBusybox(root)
    return this.image('busybox', [root], { Env: ['PATH=/bin', this.world.mark], Cmd: ['sh'], ...config }, snapshotter)
  }

  /** An image with a layer for each of these directories, imported and unpacked. Answers its name, `test.local/WORD:N`. */
  async image(
    word: string,
    layers: readonly string[],
    config: ImageConfig,
    snapshotter: Snapshotter = 'overlayfs',
    name = `test.local/${word}:${++this.#count}`,
  ): Promise<string> {
    const archive = this.archive(name, layers, config)
    try {
      // The ctr of containerd 2 cannot unpack into another snapshotter than the usual one.
      const how = snapshotter === 'overlayfs' ? [] : ['--no-unpack']
      await this.ok('images', 'import', ...how, archive)
    } finally {
      rmSync(archive)
    }
    return name
  }

  /** The archive of an image, as `ctr images export` makes it. */
  archive(name: string, layers: readonly string[], config: ImageConfig): string {
    const layout = join(this.#dir, `image-${++this.#count}`)
    const blobs = join(layout, 'blobs/sha256')
    mkdirSync(blobs, { recursive: true })
    const add = (bytes: Buffer): { digest: string; size: number } => {
      const hash = createHash('sha256').update(bytes).digest('hex')
      writeFileSync(join(blobs, hash), bytes)
      return { digest: `sha256:${hash}`, size: bytes.length }
    }
    const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))
    const tars = layers.map((directory) => add(tarOf(directory)))
    const rootfs = { type: 'layers', diff_ids: tars.map(({ digest }) => digest) }
    const oci = 'application/vnd.oci.image'
    const manifest = {
      schemaVersion: 2,
      mediaType: `${oci}.manifest.v1+json`,
      config: { mediaType: `${oci}.config.v1+json`, ...add(json({ architecture: 'amd64', os: 'linux', config, rootfs })) },
      layers: tars.map((tar) => ({ mediaType: `${oci}.layer.v1.tar`, ...tar })),
    }
    const annotations = { 'io.containerd.image.name': name, 'org.opencontainers.image.ref.name': name.split(':').at(-1) }
    const index = { schemaVersion: 2, manifests: [{ mediaType: manifest.mediaType, ...add(json(manifest)), annotations }] }
    writeFileSync(join(layout, 'index.json'), json(index))
    writeFileSync(join(layout, 'oci-layout'), json({ imageLayoutVersion: '1.0.0' }))
    execFileSync('tar', ['-C', layout, '-cf', `${layout}.tar`, '.'])
    rmSync(layout, { recursive: true })
    return `${layout}.tar`
  }

  // --- the end ---

  /** Removes every container, then throws for what is left that somebody should have removed: everything but containers of `run`. */
  async close(): Promise<void> {
    const left: string[] = []
    if (this.#daemon === undefined || this.#daemon.exitCode !== null) await this.start()
    for (const id of await this.containers()) await this.remove(id)
    for (const snapshotter of ['overlayfs', 'native'] as const)
      for (const key of await this.writableLayers(snapshotter)) left.push(`${snapshotter} snapshot ${key}`)
    const leases = (await this.ok('leases', 'ls', '--quiet')).split('\n').filter(Boolean)
    left.push(...leases.map((lease) => `lease ${lease}`))
    const shims = () => markedProcesses(this.#mark).filter(({ pid }) => pid !== this.pid)
    await until('the shims of containerd end', () => shims().length === 0).catch(() => {
      for (const { pid, command } of shims()) left.push(`process ${pid}: ${command}`)
    })
    await this.stop()
    killMarked(this.#mark)
    for (const name of existsSync(this.runcRoot) ? readdirSync(this.runcRoot) : []) left.push(`state of container ${name}`)
    rmSync(this.runcRoot, { recursive: true, force: true })
    for (const point of mountsBelow(this.#dir)) {
      left.push(`mount ${point}`)
      execFileSync('umount', ['-l', point])
    }
    const busy = () => this.#cgroups().some((path) => directoriesIn(path).length > 0)
    await until('cgroups go', () => !busy()).catch(() => undefined)
    for (const path of this.#cgroups()) {
      for (const name of directoriesIn(path)) left.push(`cgroup ${path}/${name}`)
      if (directoriesIn(path).length === 0) rmdirSync(path)
    }
    if (process.env.CEDANA_KEEP === undefined) rmSync(this.#dir, { recursive: true, force: true, maxRetries: 10 })
    if (left.length > 0) throw new Error(`containerd left over:\n${left.join('\n')}`)
  }

  /** The one of its namespace, in the one hierarchy of v2 or in each of v1: containerd leaves it. */
  #cgroups(): string[] {
    const hierarchies = [CGROUPS, ...directoriesIn(CGROUPS).map((name) => join(CGROUPS, name))]
    return hierarchies.map((path) => join(path, this.cgroup)).filter(existsSync)
  }
}

const directoriesIn = (path: string): string[] =>
  readdirSync(path, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name)

const mountsBelow = (directory: string): string[] =>
  readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((point) => point.startsWith(`${directory}/`))
    .reverse()

function makeBusybox(root: string): void {
  for (const name of ['bin', 'dev', 'etc', 'proc', 'root', 'run', 'sys', 'tmp', 'var/log']) mkdirSync(join(root, name), { recursive: true })
  copyFileSync(BUSYBOX, join(root, 'bin/busybox'))
  for (const name of execFileSync(BUSYBOX, ['--list'], { encoding: 'utf8' }).trim().split('\n'))
    if (name !== 'busybox') symlinkSync('busybox', join(root, 'bin', name))
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n')
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\nuser:x:1000:\n')
}

const tarOf = (directory: string): Buffer =>
  execFileSync('tar', ['-C', directory, '--numeric-owner', '-cf', '-', '.'], { maxBuffer: 2 ** 30 })

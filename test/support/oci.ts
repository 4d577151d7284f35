/**
 * Real containers: bundles with a busybox root file system, carried out by runc or crun under a state directory of their own.
 * At the end all of them are deleted; what then is still there (state, cgroups, mounts, processes) is said.
 */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { killMarked, markedProcesses } from './processes.js'
import { until } from './wait.js'

const BUSYBOX = '/bin/busybox'
const CGROUPS = '/sys/fs/cgroup'

/** crun does not work where version 2 of cgroups has a part of the controllers only: there it gets to see version 1. */
const WITHOUT_V2 = `umount ${CGROUPS}/unified; exec "$0" "$@"`
const isHybrid = (): boolean => existsSync(join(CGROUPS, 'unified'))

export type OciRuntime = 'runc' | 'crun'

/** config.json, as far as tests look into it. */
export interface Spec {
  process: { terminal: boolean; args: string[]; env: string[]; cwd: string; [key: string]: unknown }
  root: { path: string; readonly: boolean }
  hostname: string
  mounts: { destination: string; type?: string; source: string; options?: string[] }[]
  linux: { cgroupsPath: string; namespaces: { type: string; path?: string }[]; [key: string]: unknown }
  [key: string]: unknown
}

export interface BundleOptions {
  /** The program: in the container's PATH, which is busybox. Default: sleeps. */
  readonly args?: readonly string[]
  readonly terminal?: boolean
  /** Default: writable. */
  readonly readonly?: boolean
  /** Changes what is about to be written to config.json. */
  readonly change?: (spec: Spec) => void
}

export interface Container {
  readonly id: string
  readonly bundle: string
  /** Where its standard output and error go. */
  readonly log: string
  output(): string
  /** `runc run --detach`, answers the PID of its init. */
  run(): Promise<number>
  /** Its init waits in `runc init` until `start`. */
  create(): Promise<number>
  start(): Promise<void>
  /** Signals its init; SIGKILL also waits until the runtime calls it stopped. */
  kill(signal?: NodeJS.Signals): Promise<void>
  /** What a program in it prints. */
  exec(...args: readonly string[]): Promise<string>
  /** `runc state`; undefined when the runtime does not know it. */
  state(): Promise<{ readonly status: string; readonly pid: number } | undefined>
  /** `runc delete --force`. */
  remove(): Promise<void>
}

/** What surrounds the containers: a World, or as much of one. */
export interface ContainersOptions {
  readonly dir: string
  /** Part of every id, so that nobody else has the same. */
  readonly id: string
  /** A line of the environment of every container, by which its processes are known. */
  readonly mark: string
}

/** The first three numbers of addresses that no other world has, as likely as not at work at the same time; `number` below 8. */
export const subnetOf = ({ id }: Pick<ContainersOptions, 'id'>, number: number): string => {
  const bits = Number.parseInt(id.slice(0, 4), 16)
  return `10.${192 + (bits & 63)}.${((bits >> 6) & 31) * 8 + number}`
}

export class Containers {
  /** `--root` of the runtime: where it keeps its state. */
  readonly root: string
  readonly #all: Container[] = []
  #count = 0

  constructor(
    readonly options: ContainersOptions,
    readonly runtime: OciRuntime = 'runc',
  ) {
    this.root = join(options.dir, runtime)
  }

  get #bundles(): string {
    return join(this.options.dir, `${this.runtime}-bundles`)
  }
  get #prefix(): string {
    return `ct-${this.options.id}-${this.runtime}-`
  }

  /** As the mark of the world, for the containers of one runtime. */
  get #mark(): string {
    return `CEDANA_CONTAINERS=${this.#prefix}`
  }

  /** An id nobody else uses, for a container that something else makes. */
  id(word: string): string {
    return `${this.#prefix}${word}-${++this.#count}`
  }

  /** A bundle and the container to be made of it; nothing runs yet. */
  container(word: string, options: BundleOptions = {}): Container {
    const id = this.id(word)
    const bundle = this.bundle(id, options)
    const container = new RealContainer(this, id, bundle)
    this.#all.push(container)
    return container
  }

  /** Directory with config.json and a root file system, for the container of that id. */
  bundle(id: string, options: BundleOptions = {}): string {
    const bundle = join(this.#bundles, id)
    makeRoot(join(bundle, 'rootfs'), join(this.#bundles, 'busybox'))
    const spec = defaultSpec(id, [this.options.mark, this.#mark], options)
    options.change?.(spec)
    writeFileSync(join(bundle, 'config.json'), JSON.stringify(spec, null, 2))
    return bundle
  }

  /** The command line of the runtime, with its root. */
  argv(...args: readonly string[]): [string, ...string[]] {
    const argv: [string, ...string[]] = [this.runtime, '--root', this.root, ...args]
    return this.runtime === 'crun' && isHybrid() ? ['unshare', '--mount', 'sh', '-c', WITHOUT_V2, ...argv] : argv
  }

  /** The runtime's own command. */
  async command(...args: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
    const [file, ...rest] = this.argv(...args)
    const child = spawn(file, rest, { stdio: ['ignore', 'pipe', 'pipe'] })
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
    const [code] = (await once(child, 'close')) as [number | null]
    return { code: code ?? 137, stdout, stderr }
  }

  /** As `command`, and throws unless it ends with 0. */
  async ok(...args: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await this.command(...args)
    if (code !== 0) throw new Error(`${this.runtime} ${args.join(' ')} failed (exit ${code}): ${stderr || stdout}`)
    return stdout
  }

  /** Ids the runtime knows. */
  known(): string[] {
    return existsSync(this.root) ? readdirSync(this.root) : []
  }

  open(): void {
    mkdirSync(this.#bundles, { recursive: true })
    copyFileSync(BUSYBOX, join(this.#bundles, 'busybox'))
  }

  /** Deletes every container of `container()`, then throws for what is left. */
  async close(): Promise<void> {
    for (const container of this.#all) await container.remove()
    const left: string[] = []
    for (const id of this.known()) {
      left.push(`state of container ${id}`)
      await this.command('delete', '--force', id)
    }
    await until('cgroups go', () => this.#cgroups().length === 0).catch(() => {
      for (const path of this.#cgroups()) left.push(`cgroup ${path}`)
    })
    await until('processes go', () => markedProcesses(this.#mark).length === 0).catch(() => {
      for (const { pid, command } of killMarked(this.#mark)) left.push(`process ${pid}: ${command}`)
    })
    for (const point of mountsBelow(this.#bundles)) {
      left.push(`mount ${point}`)
      execFileSync('umount', ['-l', point])
    }
    rmSync(this.#bundles, { recursive: true, force: true, maxRetries: 10 })
    if (left.length > 0) throw new Error(`containers left over:\n${left.join('\n')}`)
  }

  /** Those of our containers, in the one hierarchy of v2 or in each of v1. */
  #cgroups(): string[] {
    const hierarchies = [CGROUPS, ...directories(CGROUPS).map((name) => join(CGROUPS, name))]
    return hierarchies.flatMap((path) =>
      directories(path)
        .filter((name) => name.startsWith(this.#prefix))
        .map((name) => join(path, name)),
    )
  }
}

class RealContainer implements Container {
  readonly log: string

  constructor(
    private readonly all: Containers,
    readonly id: string,
    readonly bundle: string,
  ) {
    this.log = join(bundle, 'output')
  }

  output(): string {
    return existsSync(this.log) ? readFileSync(this.log, 'utf8') : ''
  }

  run(): Promise<number> {
    return this.#make(['run', '--detach'])
  }

  create(): Promise<number> {
    return this.#make(['create'])
  }

  async #make(verb: readonly string[]): Promise<number> {
    const pidFile = join(this.bundle, 'pid')
    const out = openSync(this.log, 'a')
    // Detached, its streams are those of the command that makes it: a pipe would have no reader soon.
    const [file, ...args] = this.all.argv(...verb, '--bundle', this.bundle, '--pid-file', pidFile, this.id)
    const child = spawn(file, args, { stdio: ['ignore', out, out] })
    closeSync(out)
    const [code] = (await once(child, 'exit')) as [number | null]
    if (code !== 0) throw new Error(`${this.all.runtime} ${verb.join(' ')} ${this.id} failed (exit ${String(code)}): ${this.output()}`)
    return Number(readFileSync(pidFile, 'utf8'))
  }

  async start(): Promise<void> {
    await this.all.ok('start', this.id)
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    await this.all.ok('kill', this.id, signal.slice(3))
    if (signal === 'SIGKILL') await until(`${this.id} stops`, async () => (await this.state())?.status === 'stopped')
  }

  exec(...args: readonly string[]): Promise<string> {
    return this.all.ok('exec', this.id, ...args)
  }

  async state(): Promise<{ status: string; pid: number } | undefined> {
    const { code, stdout } = await this.all.command('state', this.id)
    return code === 0 ? (JSON.parse(stdout) as { status: string; pid: number }) : undefined
  }

  async remove(): Promise<void> {
    if (!existsSync(join(this.all.root, this.id))) return
    await this.all.ok('delete', '--force', this.id)
  }
}

const directories = (path: string): string[] =>
  existsSync(path)
    ? readdirSync(path, { withFileTypes: true })
        .filter((entry) => entry.isDirectory())
        .map(({ name }) => name)
    : []

const mountsBelow = (directory: string): string[] =>
  readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((point) => point.startsWith(`${directory}/`))
    .reverse()

let applets: readonly string[] | undefined

function makeRoot(rootfs: string, busybox: string): void {
  applets ??= execFileSync(BUSYBOX, ['--list'], { encoding: 'utf8' }).trim().split('\n')
  for (const name of ['bin', 'dev', 'etc', 'proc', 'root', 'sys', 'tmp']) mkdirSync(join(rootfs, name), { recursive: true })
  linkSync(busybox, join(rootfs, 'bin/busybox'))
  for (const name of applets) if (name !== 'busybox') symlinkSync('busybox', join(rootfs, 'bin', name))
}

/** As `runc spec` makes it, but for a program without terminal whose cgroup is found by its name. */
function defaultSpec(id: string, marks: readonly string[], options: BundleOptions): Spec {
  const capabilities = ['CAP_AUDIT_WRITE', 'CAP_KILL', 'CAP_NET_BIND_SERVICE']
  const inaccessible = ['nosuid', 'noexec', 'nodev']
  return {
    ociVersion: '1.0.2',
    process: {
      terminal: options.terminal ?? false,
      user: { uid: 0, gid: 0 },
      args: [...(options.args ?? ['sleep', '1000'])],
      env: ['PATH=/bin', 'TERM=xterm', ...marks],
      cwd: '/',
      capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
      noNewPrivileges: true,
    },
    root: { path: 'rootfs', readonly: options.readonly ?? false },
    hostname: 'box',
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'] },
      {
        destination: '/dev/pts',
        type: 'devpts',
        source: 'devpts',
        options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620'],
      },
      { destination: '/dev/shm', type: 'tmpfs', source: 'shm', options: [...inaccessible, 'mode=1777', 'size=65536k'] },
      { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: inaccessible },
      { destination: '/sys', type: 'sysfs', source: 'sysfs', options: [...inaccessible, 'ro'] },
      { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: [...inaccessible, 'relatime', 'ro'] },
    ],
    linux: {
      cgroupsPath: `/${id}`,
      resources: { devices: [{ allow: false, access: 'rwm' }] },
      namespaces: ['pid', 'network', 'ipc', 'uts', 'mount'].map((type) => ({ type })),
      maskedPaths: ['/proc/acpi', '/proc/kcore', '/proc/keys', '/proc/latency_stats', '/proc/timer_list', '/proc/scsi', '/sys/firmware'],
      readonlyPaths: ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'],
    },
  }
}

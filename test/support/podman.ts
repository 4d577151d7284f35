/**
 * A podman of its own: storage, state and cgroups of a test file, no network. It makes and takes checkpoint archives with a real runc and CRIU.
 */
import { execFile, execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, rmdirSync, rmSync, symlinkSync, copyFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll } from 'vitest'
import type { ContainersOptions } from './oci.js'
import { criuPath } from './plain-criu.js'
import { until } from './wait.js'

const CGROUPS = '/sys/fs/cgroup'
export const IMAGE = 'localhost/busybox:test'

export class Podman {
  #count = 0

  constructor(readonly options: ContainersOptions) {}

  /** What its one image consists of. */
  get imageTar(): string {
    return join(this.#dir, 'image.tar')
  }
  get #dir(): string {
    return join(this.options.dir, 'podman')
  }
  get #cgroup(): string {
    return `ct-${this.options.id}-podman`
  }

  open(): void {
    mkdirSync(join(this.#dir, 'image/bin'), { recursive: true })
    copyFileSync('/bin/busybox', join(this.#dir, 'image/bin/busybox'))
    for (const name of execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).trim().split('\n'))
      if (name !== 'busybox') symlinkSync('busybox', join(this.#dir, 'image/bin', name))
    execFileSync('tar', ['-C', join(this.#dir, 'image'), '-cf', this.imageTar, '.'])
    const storage = { driver: 'vfs', graphroot: join(this.#dir, 'root'), runroot: join(this.#dir, 'run') }
    const toml = (table: string, entries: Readonly<Record<string, string>>): string =>
      `[${table}]\n${Object.entries(entries)
        .map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`)
        .join('')}`
    writeFileSync(join(this.#dir, 'storage.conf'), toml('storage', storage))
    writeFileSync(join(this.#dir, 'registries.conf'), '')
    // Its locks would else be in /dev/shm, for all of the machine.
    const engine = {
      lock_type: 'file',
      runtime: 'runc',
      cgroup_manager: 'cgroupfs',
      events_logger: 'none',
      tmp_dir: join(this.#dir, 'tmp'),
    }
    writeFileSync(join(this.#dir, 'containers.conf'), toml('engine', engine) + toml('containers', { log_driver: 'k8s-file' }))
    execFileSync('podman', ['import', '--quiet', this.imageTar, IMAGE], { env: this.#env, stdio: 'pipe' })
  }

  get #env(): NodeJS.ProcessEnv {
    return {
      PATH: `${dirname(criuPath())}:${process.env.PATH ?? ''}`,
      CONTAINERS_CONF: join(this.#dir, 'containers.conf'),
      CONTAINERS_STORAGE_CONF: join(this.#dir, 'storage.conf'),
      CONTAINERS_REGISTRIES_CONF: join(this.#dir, 'registries.conf'),
    }
  }

  /** Throws unless it ends with 0. */
  async ok(...args: readonly string[]): Promise<string> {
    return (await promisify(execFile)('podman', ['--network-config-dir', join(this.#dir, 'net'), ...args], { env: this.#env })).stdout
  }

  /** A running container without a network; answers its name. */
  async run(word: string, ...command: readonly string[]): Promise<string> {
    const name = `ct-${this.options.id}-${word}-${++this.#count}`
    // The limits it would give itself are above ours where the machine has no CAP_SYS_RESOURCE.
    const limits = ['--ulimit', 'nofile=1024:1024', '--ulimit', 'nproc=1000:1000']
    const mark = ['--env', this.options.mark, '--cgroup-parent', `/${this.#cgroup}`]
    await this.ok('run', '--detach', '--name', name, '--network', 'none', ...limits, ...mark, IMAGE, ...command)
    return name
  }

  /** A bundle that could be that container on another machine: the image with `changes`, and nothing that podman keeps for it. */
  bundle(rootfsDiff: string): string {
    const bundle = join(this.#dir, `bundle-${++this.#count}`)
    mkdirSync(join(bundle, 'rootfs'), { recursive: true })
    for (const tar of [this.imageTar, rootfsDiff]) execFileSync('tar', ['-C', join(bundle, 'rootfs'), '-xf', tar])
    return bundle
  }

  /** False as long as a process is in one. */
  #removeCgroups(): boolean {
    const hierarchies = [CGROUPS, ...readdirSync(CGROUPS).map((name) => join(CGROUPS, name))]
    const directories = hierarchies.flatMap((path) => [join(path, this.#cgroup, 'conmon'), join(path, this.#cgroup)])
    for (const directory of directories) {
      try {
        if (existsSync(directory)) rmdirSync(directory)
      } catch {
        return false
      }
    }
    return true
  }

  async close(): Promise<void> {
    await this.ok('rm', '--all', '--force', '--time', '0')
    // What watched the containers ends after they are gone.
    await until('the cgroups of podman go', () => this.#removeCgroups())
    rmSync(this.#dir, { recursive: true })
  }
}

export function usePodman(world: ContainersOptions): Podman {
  const podman = new Podman(world)
  beforeAll(() => podman.open())
  afterAll(() => podman.close(), 120_000)
  return podman
}

/** The double of the NVIDIA driver, in a directory of its own, and programs that use it. */
import { execFile, execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { mkdir, readFile, rename, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { beforeAll } from 'vitest'
import { until } from './wait.js'
import { type Job, useWorld, type World, type WorldOptions } from './world.js'

const SOURCE = join(import.meta.dirname, 'fake-cuda.c')
const FLAGS = ['-shared', '-fPIC', '-std=gnu17', '-D_GNU_SOURCE', '-O1', '-g', '-Wall', '-Wextra', '-Werror', '-pthread']

async function build(): Promise<string> {
  const hash = createHash('sha256')
    .update(FLAGS.join(' '))
    .update(await readFile(SOURCE))
  const path = join(`/tmp/cedana-test-programs-${process.getuid?.() ?? 0}`, hash.digest('hex').slice(0, 16), 'libcuda.so.1')
  if (await stat(path).catch(() => undefined)) return path
  await mkdir(join(path, '..'), { recursive: true })
  const temporary = `${path}.${process.pid}`
  await promisify(execFile)('cc', [...FLAGS, '-o', temporary, SOURCE])
  await rename(temporary, path)
  return path
}

export type Mode = 'before' | 'after' | 'lose' | 'abort' | 'abort-after' | 'hang'
export interface Settings {
  readonly version?: number
  readonly driver?: string
  readonly devices?: number
  readonly gib?: number
  readonly name?: string
  readonly seed?: number
  readonly rate?: number
  readonly init?: number
  readonly nvml?: number
  readonly used?: number | undefined
  readonly mps?: number
  /** `K MODE CODE TIMES` */
  readonly fault?: string
}

export class FakeGpu {
  #settings: Settings = {}

  constructor(
    readonly dir: string,
    devices: number,
  ) {
    this.set({ devices })
  }

  /** The library, both of CUDA and of NVML. */
  get library(): string {
    return join(this.dir, 'libcuda.so.1')
  }

  /** For a daemon that is to use it. */
  get env(): Record<string, string> {
    return {
      CEDANA_GPU_CUDA_LIBRARY: this.library,
      CEDANA_GPU_NVML_LIBRARY: this.library,
      CEDANA_GPU_DEVICE_PREFIX: join(this.dir, 'nvidia'),
    }
  }

  set(settings: Settings): void {
    this.#settings = { ...this.#settings, ...settings }
    const lines = Object.entries(this.#settings).flatMap(([name, value]) => (value === undefined ? [] : `${name} ${String(value)}\n`))
    // Its users read it at any time: all of it or none.
    writeFileSync(join(this.dir, 'settings.new'), lines.join(''))
    renameSync(join(this.dir, 'settings.new'), join(this.dir, 'settings'))
  }

  /** From now on calls are counted anew, and the given one fails (`times`: and those after it). */
  arm(fault?: { readonly call: number; readonly mode: Mode; readonly code?: number; readonly times?: number }): void {
    rmSync(join(this.dir, 'calls'), { force: true })
    this.set({ fault: fault === undefined ? '0 none 0' : `${fault.call} ${fault.mode} ${fault.code ?? 999} ${fault.times ?? 1}` })
  }

  /** `lock 123`, `restore 123 10=20`: since `arm`. */
  calls(): string[] {
    const path = join(this.dir, 'calls')
    return existsSync(path) ? readFileSync(path, 'utf8').trimEnd().split('\n') : []
  }
}

/** In a new directory below `parent`, with nodes that CRIU cannot dump. */
export async function fakeGpu(parent: string, devices = 2): Promise<FakeGpu> {
  const dir = join(parent, 'gpu')
  mkdirSync(dir)
  copyFileSync(await build(), join(dir, 'libcuda.so.1'))
  // Of /dev/fuse: whatever has one open still has not let go of its GPU.
  const nodes = ['nvidiactl', ...Array.from({ length: devices }, (_, index) => `nvidia${index}`)]
  for (const name of nodes) execFileSync('mknod', ['-m', '666', join(dir, name), 'c', '10', '229'])
  return new FakeGpu(dir, devices)
}

/** A world with a double, whose daemon (if it is to have one) uses it. `devicePrefix`: where the devices are for those who use them. */
export function useGpuWorld({ devicePrefix, ...options }: WorldOptions & { readonly devicePrefix?: string } = {}): {
  readonly world: World
  readonly gpu: () => FakeGpu
} {
  const env: Record<string, string> = { ...options.env }
  const world = useWorld({ ...options, env, withoutDaemon: true })
  let gpu: FakeGpu | undefined
  beforeAll(async () => {
    gpu = await fakeGpu(world.dir)
    Object.assign(env, gpu.env, devicePrefix === undefined ? {} : { CEDANA_GPU_DEVICE_PREFIX: devicePrefix })
    if (options.withoutDaemon !== true) await world.startDaemon()
  })
  return {
    world,
    gpu: () => {
      if (!gpu) throw new Error('the world is not open yet')
      return gpu
    },
  }
}

/** A job of so many processes that use a GPU, each with `mib` of device memory. */
export async function gpuJob(world: World, gpu: FakeGpu, processes = 1, mib = 2, mode: readonly string[] = []): Promise<GpuJob> {
  const job = await world.job('gpu', [gpu.library, String(processes), String(mib), ...mode])
  return { ...job, works: (pid = job.pid) => works(job, pid) }
}

export interface GpuJob extends Job {
  /** Every process of it runs a kernel: none is locked, none has lost its device. */
  works(pid?: number): Promise<void>
}

async function works(job: Job, pid: number): Promise<void> {
  const count = (): number => job.output().match(/^ALIVE$/gm)?.length ?? 0
  const before = count()
  process.kill(pid, 'SIGUSR2')
  await until('all processes run kernels', () => count() > before)
}

/** A daemon of its own, a directory on the disk that is measured, and the peers: plain CRIU and bare node. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { connect } from '../src/daemon/api/client.js'
import type { Engine } from '../src/daemon/api/engine.js'
import { timed } from './measure.js'

const PRIVATE_CRIU = '/opt/cedana/criu/bin/criu'

export interface World {
  readonly dir: string
  readonly cedana: string
  readonly criu: string
  readonly env: NodeJS.ProcessEnv
  readonly daemon: ChildProcess & { readonly pid: number }
  readonly engine: Engine
  /** Sources of workloads. */
  readonly workloads: string
  close(): Promise<void>
}

export async function openWorld(root: string, variables: Readonly<Record<string, string>> = {}): Promise<World> {
  const parent = process.env['CEDANA_BENCH_DIR'] ?? '/var/tmp'
  const dir = mkdtempSync(join(parent, 'cedana-bench-'))
  const address = join(dir, 'cedana.sock')
  const env = {
    ...process.env,
    CEDANA_CONFIG_DIR: join(dir, 'config'),
    CEDANA_ADDRESS: address,
    CEDANA_RUN_DIR: join(dir, 'run'),
    CEDANA_DB_PATH: join(dir, 'cedana.db'),
    CEDANA_CHECKPOINT_DIR: join(dir, 'checkpoints'),
    CEDANA_LOG_LEVEL: 'warn',
    CEDANA_PROFILING_ENABLED: 'false',
    ...variables,
  }
  mkdirSync(join(dir, 'checkpoints'))
  const cedana = resolve(root, 'bin/cedana')
  const daemon = spawn(process.execPath, ['--import', loopProbe(dir), cedana, 'daemon', 'start'], {
    env,
    stdio: ['ignore', 'ignore', 'inherit'],
  }) as ChildProcess & {
    readonly pid: number
  }
  for (const until = Date.now() + 15_000; !existsSync(address); await new Promise((done) => setTimeout(done, 20))) {
    if (Date.now() > until) throw new Error('the daemon did not start')
  }
  const engine = connect({ protocol: 'unix', address, waitForReady: true, tokenFile: '' })
  return {
    dir,
    cedana,
    criu: existsSync(PRIVATE_CRIU) ? PRIVATE_CRIU : 'criu',
    env,
    daemon,
    engine,
    workloads: resolve(root, 'bench/workloads'),
    close: async () => {
      engine.close()
      daemon.kill('SIGTERM')
      await once(daemon, 'exit')
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

/** Path of a workload, built. */
export async function built({ dir, workloads }: World, name: string, flags: readonly string[] = []): Promise<string> {
  const path = join(dir, name)
  await timed(['cc', '-O2', ...flags, '-o', path, join(workloads, `${name}.c`)])
  return path
}

export const cedana = (world: World, ...args: readonly string[]): Promise<{ ms: number; stdout: string }> =>
  timed([process.execPath, world.cedana, ...args], world.env)

/** Loaded by the daemon: on SIGUSR2 it writes how late its event loop was since the last time, and begins anew; until the first time it costs nothing. */
const loopProbe = (dir: string): string =>
  `data:text/javascript,${encodeURIComponent(`
    import { monitorEventLoopDelay } from 'node:perf_hooks'
    import { renameSync, writeFileSync } from 'node:fs'
    const delay = monitorEventLoopDelay({ resolution: 1 })
    process.on('SIGUSR2', () => {
      writeFileSync('${dir}/loop.new', String(delay.percentile(99) / 1e6))
      renameSync('${dir}/loop.new', '${dir}/loop')
      delay.reset()
      delay.enable()
    })`)}`

/** The 99th percentile since the last call. The probe's own timer is a millisecond. */
export async function loopDelayMs(world: World): Promise<number> {
  const file = join(world.dir, 'loop')
  rmSync(file, { force: true })
  world.daemon.kill('SIGUSR2')
  while (!existsSync(file)) await new Promise((done) => setTimeout(done, 5))
  return Number(readFileSync(file, 'utf8'))
}

/** Highest resident memory of a process since `resetPeak`. */
export function peakMiB(pid: number): number {
  return Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? NaN) / 1024
}
export const resetPeak = (pid: number): void => writeFileSync(`/proc/${pid}/clear_refs`, '5')

/** Resident memory of a process in MiB, split as the kernel does: shared pages of files counted in full. */
export function residentMiB(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? NaN) / 1024
}

/** Waits until a PID is free: its process reaped by whoever is its parent. */
export async function pidFree(pid: number): Promise<void> {
  for (const until = Date.now() + 20_000; existsSync(`/proc/${pid}`); await new Promise((done) => setTimeout(done, 20))) {
    if (Date.now() > until) throw new Error(`PID ${pid} is still taken`)
  }
}

/**
 * What a tree has on GPUs, around a dump and a restore. From the moment that work on a device is stopped there is a note of it in the run directory: a
 * daemon that finds one of a dead process of cedana lets the tree go on.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { DeviceMap, Gpu, GpuProcess, GpuUse } from '../../plugins/contract/gpu.js'
import type { Host } from '../../plugins/contract/host.js'
import type { Snapshot, Target } from '../../plugins/contract/job.js'
import type { Problem } from '../../plugins/contract/plan.js'
import * as processes from '../host/processes.js'
import { readShimState } from '../host/shim.js'
import type { Manifest } from '../images/manifest.js'
import type { JobRecord } from '../jobs/job.js'
import type { Environment } from './environment.js'
import { hostFor } from './host.js'
import { leftNotes, writeNote } from './notes.js'
import type { RestoreRequest } from './verbs.js'

/** Of the manifest. */
const GPU_SECTION = 'gpu'

type Saved = GpuUse['saved']
type Note =
  | { readonly kind: 'dump'; readonly lock: string; readonly processes: readonly GpuProcess[] }
  | { readonly kind: 'restore'; readonly lock: string; readonly directory: string; readonly saved: Saved; readonly devices: DeviceMap }

const notesDirectory = (env: Environment): string => join(env.config.run_dir, 'gpu')

const noteDown = (env: Environment, note: Note): Promise<string> => writeNote(env, notesDirectory(env), note)

const frozen = (jid: string): Problem => ({
  severity: 'error',
  id: 'gpu-stopped',
  message: `job ${jid} is frozen, and its processes have to hand over themselves what they have on a GPU`,
  hint: 'unfreeze it first',
})

/** What a checkpoint has of GPUs, by process. */
export async function gpuContents(env: Environment, manifest: Manifest | undefined): Promise<ReadonlyMap<number, object>> {
  const saved = manifest?.sections.find(({ name }) => name === GPU_SECTION)
  return saved ? (await env.gpu()).contents(saved) : new Map()
}

/** The processes of a tree that are on GPUs, while it is dumped. */
export class DumpedGpu {
  #note: string | undefined
  #isSettled = false

  private constructor(
    private readonly env: Environment,
    private readonly host: Host,
    private readonly gpu: Gpu,
    private readonly use: GpuUse,
  ) {}

  /** Undefined when there are none. A job that has one without having said so is said to have one from now on. */
  static async find(env: Environment, host: Host, snapshot: Snapshot, job: JobRecord | undefined): Promise<DumpedGpu | undefined> {
    const gpu = await env.gpu()
    const use = await gpu.find(host, snapshot, job?.gpuEnabled ?? false)
    if (job && !job.gpuEnabled && use.processes.length > 0) env.jobs.update(job.jid, { gpuEnabled: true })
    if (job?.frozen === true && use.processes.length > 0)
      return new DumpedGpu(env, host, gpu, { ...use, problems: [...use.problems, frozen(job.jid)] })
    return use.processes.length > 0 || use.problems.length > 0 ? new DumpedGpu(env, host, gpu, use) : undefined
  }

  get problems(): readonly Problem[] {
    return this.use.problems
  }

  get deviceBytes(): number {
    return this.use.processes.reduce((sum, { deviceBytes }) => sum + deviceBytes, 0)
  }

  get section(): Manifest['sections'][number] {
    return { name: GPU_SECTION, ...this.use.saved }
  }

  /** `lock`: what operations on the tree exclude each other by. */
  async note(lock: string): Promise<void> {
    this.#note = await noteDown(this.env, { kind: 'dump', lock, processes: this.use.processes })
  }

  lock(): Promise<void> {
    return this.gpu.lock(this.host, this.use.processes)
  }

  async copyToHost(target: Target): Promise<void> {
    await this.gpu.checkpoint(this.host, this.use.processes)
    await this.gpu.mustBeGone(this.host, await processes.inspect(target))
  }

  async release(): Promise<void> {
    try {
      await this.gpu.release(this.host, this.use.processes, [])
      this.#isSettled = true
    } catch (thrown) {
      // What is lost nobody can give back, not even the next daemon.
      this.#isSettled = CedanaError.from(thrown).detail['isLost'] === true
      throw thrown
    }
  }

  /** The end of the dump, whatever came of it: what still lives runs on. */
  async end(): Promise<void> {
    try {
      if (!this.#isSettled) await this.release()
    } finally {
      if (this.#note !== undefined && this.#isSettled) await rm(this.#note, { force: true })
    }
  }
}

/** The same of a checkpoint, while it is restored. */
export class RestoredGpu {
  private constructor(
    private readonly env: Environment,
    private readonly host: Host,
    private readonly gpu: Gpu,
    private readonly saved: Saved,
    private readonly match: Awaited<ReturnType<Gpu['match']>>,
  ) {}

  /** Undefined when the checkpoint has none. */
  static async match(
    env: Environment,
    host: Host,
    manifest: Manifest | undefined,
    request: Pick<RestoreRequest, 'gpus' | 'leaveStopped'>,
  ): Promise<RestoredGpu | undefined> {
    const saved = manifest?.sections.find(({ name }) => name === GPU_SECTION)
    if (!saved) {
      if (request.gpus.length === 0) return undefined
      throw new CedanaError('BAD_OPTIONS', 'the checkpoint has nothing on a GPU', { hint: 'leave --gpus out' })
    }
    if (request.leaveStopped === true)
      throw new CedanaError('BAD_OPTIONS', 'processes that use a GPU cannot be left stopped: they have to get it back', {
        hint: 'leave --leave-stopped out',
      })
    const gpu = await env.gpu()
    return new RestoredGpu(env, host, gpu, saved, await gpu.match(host, saved, request.gpus))
  }

  get problems(): readonly Problem[] {
    return this.match.problems
  }

  /** `directory`: of the job, where its shim says what became of it. Answers how the note is removed. */
  async note(lock: string, directory: string): Promise<() => Promise<void>> {
    const note = await noteDown(this.env, { kind: 'restore', lock, directory, saved: this.saved, devices: this.match.devices })
    return () => rm(note, { force: true })
  }

  /** The tree is there, as CRIU has restored it. Answers how much has gone back. */
  async copyToDevices(pid: number): Promise<number> {
    return giveBack(this.host, this.gpu, await processes.identify(pid), { saved: this.saved, devices: this.match.devices })
  }
}

async function giveBack(
  host: Host,
  gpu: Gpu,
  target: Target,
  { saved, devices }: { readonly saved: Saved; readonly devices: DeviceMap },
): Promise<number> {
  const waiting = await gpu.waiting(host, await processes.inspect(target), saved)
  await gpu.release(host, waiting, devices)
  return waiting.reduce((sum, { deviceBytes }) => sum + deviceBytes, 0)
}

/** What dead processes of cedana have left locked goes on. Their CRIU lets go of a tree by itself, and the driver waits for that. */
export async function releaseLeftGpus(env: Environment): Promise<void> {
  for await (const { path, note } of leftNotes(notesDirectory(env))) void releaseLeft(env, path, note as Note)
}

async function releaseLeft(env: Environment, path: string, note: Note): Promise<void> {
  const held = takeLock(env, note)
  try {
    const gpu = await env.gpu()
    const host = hostFor(env, new AbortController().signal)
    if (note.kind === 'dump') await gpu.release(host, note.processes, [])
    else {
      const target = (await readShimState(note.directory))?.target
      if (target && (await processes.isAlive(target))) await giveBack(host, gpu, target, note)
    }
    await rm(path, { force: true })
    env.log.warn({ lock: note.lock }, 'let go on what an interrupted operation had left without its GPU')
  } catch (thrown) {
    env.log.warn({ lock: note.lock, err: CedanaError.from(thrown).message }, 'a tree that was left without its GPU could not be let go on')
  } finally {
    held?.[Symbol.dispose]()
  }
}

/** Somebody may wait for the same job to come up: then it is locked already. */
function takeLock(env: Environment, { kind, lock }: Note): Disposable | undefined {
  try {
    return env.locks.take(lock, kind)
  } catch {
    return undefined
  }
}

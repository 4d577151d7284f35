/** Processes of CUDA taken from one state to the next. */
import { CUDA_NOT_READY, CUDA_NOT_SUPPORTED, CUDA_UNKNOWN, cudaError } from '../contract/cuda.js'
import { CedanaError } from '../contract/errors.js'
import type { DeviceMap, GpuProcess } from '../contract/gpu.js'
import type { Host } from '../contract/host.js'

/** A failure to let a process go on is not believed before so many tries, with waits that grow from one to the next. */
const TRIES = 6
const FIRST_WAIT_MS = 20

/** All at once; waits for the last one, and throws what failed first in the order of the processes. */
async function each(processes: readonly GpuProcess[], work: (process: GpuProcess) => Promise<void>): Promise<void> {
  const failures = (await Promise.allSettled(processes.map(work))).flatMap((one) =>
    one.status === 'rejected' ? [one.reason as unknown] : [],
  )
  const [first, ...others] = failures.map((thrown) => CedanaError.from(thrown))
  if (!first) return
  first.suppressed.push(...others)
  throw first
}

export function lock(host: Host, processes: readonly GpuProcess[], timeoutMs: number): Promise<void> {
  return each(processes, async ({ target: { pid } }) => {
    const result = await host.cuda.lock(pid, timeoutMs)
    if (result === 0) return
    if (result === CUDA_NOT_READY) {
      throw new CedanaError('TIMEOUT', `process ${pid} has not finished its work on the GPU within ${timeoutMs / 1000} s`, {
        detail: { pid, result },
        hint: 'try again, or raise gpu.lock_timeout_ms',
      })
    }
    throw refused(pid, 'lock', result)
  })
}

export function checkpoint(host: Host, processes: readonly GpuProcess[]): Promise<void> {
  return each(processes, async ({ target: { pid }, deviceBytes }) => {
    const result = await host.cuda.checkpoint(pid, deviceBytes)
    if (result !== 0) throw refused(pid, 'checkpoint', result)
  })
}

/**
 * Memory first, of all at once; then each may run, those last that were locked first. What fails is tried again when all others run: a process that has imported
 * memory of another does not get its own back before that one has (seen with driver 580: INVALID_VALUE).
 */
export async function release(host: Host, processes: readonly GpuProcess[], devices: DeviceMap): Promise<void> {
  const failures = new Map<GpuProcess, CedanaError>()
  const attempt = (process: GpuProcess, goal: 'locked' | 'running'): Promise<void> =>
    settle(host, process, devices, goal).then(
      () => void failures.delete(process),
      (thrown: unknown) => void failures.set(process, CedanaError.from(thrown)),
    )
  await Promise.all(processes.map((process) => attempt(process, 'locked')))
  const again = [...failures.keys()]
  for (const process of [...processes].reverse()) if (!again.includes(process)) await attempt(process, 'running')
  for (const process of again) await attempt(process, 'running')
  const [first, ...others] = failures.values()
  if (!first) return
  first.suppressed.push(...others)
  throw first
}

async function settle(host: Host, process: GpuProcess, devices: DeviceMap, goal: 'locked' | 'running'): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      while (!(await advance(host, process, devices, goal)));
      return
    } catch (thrown) {
      const error = CedanaError.from(thrown)
      if (tries === TRIES || error.detail['isLost'] === true) throw error
      await new Promise((resolve) => setTimeout(resolve, FIRST_WAIT_MS * 2 ** tries))
    }
  }
}

/** One step towards the goal, as the state says which; true when it is reached. */
async function advance(host: Host, { target, deviceBytes }: GpuProcess, devices: DeviceMap, goal: 'locked' | 'running'): Promise<boolean> {
  const { pid } = target
  const there = await host.brief(pid)
  if (there?.target.startTicks !== target.startTicks || there.state === 'Z' || there.state === 'X') return true
  const { result, state } = await host.cuda.look(pid)
  if (state === undefined) throw failed(pid, 'look at', result)
  if (state === 'running' || (state === 'locked' && goal === 'locked')) return true
  if (state === 'failed') {
    throw new CedanaError('GPU_FAILED', `process ${pid} has lost its GPU: the driver could not give back what it had taken`, {
      detail: { pid, isLost: true },
      hint: 'end the process; a checkpoint made before can be restored',
    })
  }
  const [what, answer] =
    state === 'checkpointed'
      ? (['restore', await host.cuda.restore(pid, deviceBytes, devices)] as const)
      : (['unlock', await host.cuda.unlock(pid)] as const)
  if (answer !== 0) throw failed(pid, what, answer)
  return false
}

const failed = (pid: number, what: string, result: number, hint?: string): CedanaError =>
  new CedanaError('GPU_FAILED', `the CUDA driver could not ${what} process ${pid}: ${cudaError(result)}`, {
    detail: { pid, result },
    ...(hint === undefined ? {} : { hint }),
  })

const refused = (pid: number, what: string, result: number): CedanaError =>
  result === CUDA_NOT_SUPPORTED
    ? new CedanaError('TARGET_UNFIT', `process ${pid} uses features of CUDA that this driver cannot checkpoint`, {
        detail: { pid, result },
        hint: 'they may be managed memory (UVM), memory shared with other processes (IPC, NCCL over shared memory) or MPS: do without, or use a newer driver',
      })
    : failed(
        pid,
        what,
        result,
        result === CUDA_UNKNOWN
          ? 'the driver says so of a process from its second try on, if it has features of CUDA that cannot be checkpointed, such as managed memory (UVM)'
          : undefined,
      )

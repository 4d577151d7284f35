import { z } from 'zod'
import type { CudaDevice, CudaFacts } from '../contract/cuda.js'
import { CUDA_OPERATING_SYSTEM, CUDA_RESULTS, cudaError } from '../contract/cuda.js'
import { CedanaError } from '../contract/errors.js'
import type { Gpu, GpuMatch, GpuProcess, GpuRow, GpuSettings, GpuUse } from '../contract/gpu.js'
import type { Host } from '../contract/host.js'
import type { ProcessFacts, Snapshot } from '../contract/job.js'
import type { Problem } from '../contract/plan.js'
import { canRemap, driverName, unfit, usableDriver, version } from './driver.js'
import { availableBytes, memoryProblems } from './memory.js'
import { checkpoint, lock, release } from './state.js'

const VERSION = 1
const Saved = z.object({
  cudaVersion: z.int(),
  driver: z.string(),
  devices: z.array(z.object({ uuid: z.string(), name: z.string(), totalBytes: z.number() })),
  processes: z.array(z.object({ pid: z.int(), deviceBytes: z.number() })),
})
type Saved = z.output<typeof Saved>

/** How the driver says that a process is none of CUDA. */
const NOT_CUDA: ReadonlySet<number> = new Set([1, 3])
/** Kernel states of a process that a signal or a debugger has stopped. */
const STOPPED: ReadonlySet<string> = new Set(['T', 't'])

const who = ({ pid, name }: ProcessFacts): string => `process ${pid} (${name})`
const error = (id: string, message: string, hint: string, pid?: number): Problem => ({
  severity: 'error',
  id,
  message,
  hint,
  ...(pid === undefined ? {} : { pid }),
})

export function cudaGpu({ devicePrefix, lockTimeoutMs }: GpuSettings): Gpu {
  const isDevice = ({ path }: { readonly path: string }): boolean => path.startsWith(devicePrefix)
  const holdsDevice = ({ files }: ProcessFacts): boolean => files.some(isDevice)
  return {
    find: async (host, snapshot, isExpected) => {
      const holders = snapshot.processes.filter(holdsDevice)
      if (holders.length === 0 && !isExpected) return NONE
      return find(host, snapshot, { holders, devicePrefix })
    },
    lock: (host, processes) => lock(host, processes, lockTimeoutMs),
    checkpoint,
    mustBeGone: async (_host, { processes }) => {
      const [holder] = processes.filter(holdsDevice)
      if (!holder) return
      const path = holder.files.find(isDevice)?.path ?? ''
      throw new CedanaError('TARGET_UNFIT', `${who(holder)} has ${path} open, after the driver had taken what was on GPUs`, {
        detail: { pid: holder.pid },
        hint: 'it began to use a GPU meanwhile: try again',
      })
    },
    release,
    match: async (host, saved, chosen) => match(host, parseSaved(saved), chosen),
    waiting: async (host, snapshot, saved) => waiting(host, snapshot, parseSaved(saved)),
    contents: (saved) => {
      const { devices, processes } = parseSaved(saved)
      const device = [...new Set(devices.map(({ name }) => name))].join(', ')
      return new Map(processes.map(({ pid, deviceBytes }) => [pid, { device, storedBytes: deviceBytes }]))
    },
    mustBeUsable: async (host) => {
      await usableDriver(host)
    },
    check,
  }
}

const NONE: GpuUse = { processes: [], problems: [], saved: { version: VERSION, data: {} } }

function parseSaved({ version: of, data }: { readonly version: number; readonly data: unknown }): Saved {
  const saved = Saved.safeParse(data)
  if (of === VERSION && saved.success) return saved.data
  throw new CedanaError('FORMAT_UNSUPPORTED', `the checkpoint has its GPUs saved in a form (version ${of}) that is not known here`, {
    hint: 'restore it with a newer cedana',
  })
}

interface Holders {
  readonly holders: readonly ProcessFacts[]
  readonly devicePrefix: string
}

async function find(host: Host, snapshot: Snapshot, { holders, devicePrefix }: Holders): Promise<GpuUse> {
  let facts: CudaFacts
  try {
    facts = await usableDriver(host)
  } catch (thrown) {
    const [holder] = holders
    const { message, hint } = CedanaError.from(thrown)
    return holder ? { ...NONE, problems: [error('gpu-driver', `${who(holder)} uses a GPU, and ${message}`, hint ?? '', holder.pid)] } : NONE
  }
  const [looks, uses] = await Promise.all([
    Promise.all(snapshot.processes.map(async (one) => ({ one, ...(await host.cuda.look(one.pid)) }))),
    host.cuda.uses(),
  ])
  const problems: Problem[] = []
  const processes: GpuProcess[] = []
  for (const { one, result, state } of looks) {
    // That is the answer to a process that has ended meanwhile.
    if (result === CUDA_OPERATING_SYSTEM && !(await host.brief(one.pid))) continue
    if (state === undefined && !NOT_CUDA.has(result))
      throw new CedanaError('GPU_FAILED', `the CUDA driver could not look at process ${one.pid}: ${cudaError(result)}`, {
        detail: { pid: one.pid, result },
      })
    if (state === undefined && holders.includes(one)) {
      const message = `${who(one)} has a GPU open that it does not use itself, which cannot be dumped`
      problems.push(
        error(
          'gpu-inherited',
          message,
          'have it closed: start children that do not use the GPU before CUDA is initialised, or by exec',
          one.pid,
        ),
      )
    }
    if (state === undefined) continue
    if (STOPPED.has(one.state))
      problems.push(
        error(
          'gpu-stopped',
          `${who(one)} is stopped, and has to hand over itself what it has on a GPU`,
          'let it go on (cedana unfreeze)',
          one.pid,
        ),
      )
    if (state !== 'running') {
      const message =
        state === 'failed' ? `${who(one)} has lost its GPU` : `${who(one)} was ${state} already by somebody else (cuda-checkpoint)`
      problems.push(error(`gpu-${state}`, message, state === 'failed' ? 'end it' : 'let it go on first', one.pid))
    }
    processes.push({
      target: { pid: one.pid, startTicks: one.startTicks, bootId: snapshot.target.bootId },
      deviceBytes: uses?.get(one.pid)?.bytes ?? 0,
    })
    // Its state is in the server of MPS, which is not part of the tree.
    if (uses?.get(one.pid)?.usesMps === true)
      problems.push(error('gpu-mps', `${who(one)} uses its GPU through MPS, which cannot be dumped`, 'start it without MPS', one.pid))
  }
  const isUnknown = ({ target: { pid } }: GpuProcess): boolean =>
    uses === undefined || (uses.has(pid) && uses.get(pid)?.bytes === undefined)
  if (processes.some(isUnknown)) {
    const message = 'how much memory is in use on the GPU is not known (NVML does not tell), nor whether the host has as much'
    problems.push({ severity: 'warning', id: 'gpu-memory-unknown', message, hint: 'set gpu.nvml_library, where it is not found' })
  }
  problems.push(...(await memoryProblems(host, snapshot, processes)))
  const saved: Saved = {
    cudaVersion: facts.cudaVersion,
    driver: facts.driver,
    devices: openDevices(facts, { holders, devicePrefix }).map(({ uuid, name, totalBytes }) => ({ uuid, name, totalBytes })),
    processes: processes.map(({ target, deviceBytes }) => ({ pid: target.pid, deviceBytes })),
  }
  return { processes, problems, saved: { version: VERSION, data: saved } }
}

/** A process of CUDA opens all devices that it can see. All of the machine's, where that does not say which they are. */
function openDevices({ devices }: CudaFacts, { holders, devicePrefix }: Holders): readonly CudaDevice[] {
  const paths = new Set(holders.flatMap(({ files }) => files.map(({ path }) => path)))
  const open = devices.filter(({ minor }) => paths.has(`${devicePrefix}${minor}`))
  return open.length > 0 && devices.every(({ minor }) => minor !== null) ? open : devices
}

async function match(host: Host, saved: Saved, chosen: readonly number[]): Promise<GpuMatch> {
  let facts: CudaFacts
  try {
    facts = await usableDriver(host)
  } catch (thrown) {
    const { message, hint } = CedanaError.from(thrown)
    return { devices: [], problems: [error('gpu-driver', `the checkpoint has processes on a GPU, and ${message}`, hint ?? '')] }
  }
  const refuse = (id: string, message: string, hint: string): GpuMatch => ({ devices: [], problems: [error(id, message, hint)] })
  const wanted = chosen.length > 0 ? chosen : sameDevices(saved, facts) ? undefined : saved.devices.map((_, index) => index)
  const problems = facts.cudaVersion < saved.cudaVersion ? [olderDriver(saved, facts)] : []
  if (wanted === undefined) return { devices: [], problems: [...problems, ...(await roomProblems(host, saved))] }
  if (!canRemap(facts)) {
    const message = `the checkpoint was made with other GPUs, and the NVIDIA driver (${driverName(facts)}) cannot restore onto these`
    return refuse('gpu-remap', message, 'use driver 580 or newer, or the machine it was made on')
  }
  if (wanted.length !== saved.devices.length || new Set(wanted).size !== wanted.length) {
    const message = `the checkpoint needs ${saved.devices.length} different GPUs, ${wanted.length} were named`
    return refuse('gpu-count', message, `name as many with --gpus, in this order: ${saved.devices.map(({ name }) => name).join(', ')}`)
  }
  const pairs: { from: string; to: string }[] = []
  for (const [index, device] of saved.devices.entries()) {
    const number = wanted[index] ?? -1
    const to = facts.devices[number]
    if (!to) {
      const message = `there is no GPU ${number}: this machine has ${facts.devices.length}, the checkpoint needs ${saved.devices.length}`
      return refuse('gpu-missing', message, 'choose others with --gpus')
    }
    if (to.name !== device.name) {
      const message = `GPU ${number} is ${to.name}, and the checkpoint needs ${device.name}`
      return refuse('gpu-model', message, 'choose GPUs of the same model with --gpus')
    }
    if (to.totalBytes < device.totalBytes)
      problems.push(error('gpu-size', `GPU ${number} has less memory than the one of the checkpoint`, 'choose another'))
    pairs.push({ from: device.uuid, to: to.uuid })
  }
  return { devices: pairs, problems: [...problems, ...(await roomProblems(host, saved))] }
}

const sameDevices = (saved: Saved, { devices }: CudaFacts): boolean =>
  saved.devices.every(({ uuid }) => devices.some((device) => device.uuid === uuid))

const olderDriver = (saved: Saved, facts: CudaFacts): Problem => ({
  severity: 'warning',
  id: 'gpu-older-driver',
  message: `the checkpoint was made with NVIDIA driver ${driverName(saved)}, this is ${driverName(facts)}`,
})

/** The pages of the images are in memory, and those that go back to the devices are there at the same time. */
async function roomProblems(host: Host, saved: Saved): Promise<readonly Problem[]> {
  const needed = saved.processes.reduce((sum, { deviceBytes }) => sum + deviceBytes, 0)
  const free = await availableBytes(host)
  if (needed <= free) return []
  const message = `the host has not enough memory for what goes back to the GPU: ${Math.ceil(needed / 2 ** 20)} MiB are needed, ${Math.ceil(free / 2 ** 20)} MiB are free`
  return [error('gpu-memory', message, 'free some memory')]
}

async function waiting(host: Host, snapshot: Snapshot, saved: Saved): Promise<readonly GpuProcess[]> {
  const looks = await Promise.all(snapshot.processes.map(async (one) => ({ one, ...(await host.cuda.look(one.pid)) })))
  const found = looks.filter(({ state }) => state !== undefined)
  if (found.length !== saved.processes.length) {
    throw new CedanaError(
      'GPU_FAILED',
      `the CUDA driver knows ${found.length} of the restored processes, and ${saved.processes.length} used a GPU`,
      { detail: { results: looks.map(({ one, result }) => `${one.pid}: ${CUDA_RESULTS[result]?.[0] ?? result}`) } },
    )
  }
  // Of a container they have other numbers outside than before, and the same order.
  return found.map(({ one }, index) => ({
    target: { pid: one.pid, startTicks: one.startTicks, bootId: snapshot.target.bootId },
    deviceBytes: saved.processes[index]?.deviceBytes ?? 0,
  }))
}

const row = (name: string, data: string, warnings: readonly string[] = [], errors: readonly string[] = []): GpuRow => ({
  name,
  data,
  warnings,
  errors,
})

async function check(host: Host): Promise<readonly GpuRow[]> {
  let facts: CudaFacts
  try {
    facts = await host.cuda.facts()
  } catch (thrown) {
    return [row('driver', 'missing', [`${CedanaError.from(thrown).message}: processes that use a GPU cannot be dumped`])]
  }
  const old = unfit(facts)
  const uses = await host.cuda.uses()
  const needed = [...(uses?.values() ?? [])].reduce((sum, { bytes = 0 }) => sum + bytes, 0)
  const free = await availableBytes(host)
  const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`
  const unknown = uses === undefined ? ['no NVML: how much is needed is not known'] : []
  const short = needed > free ? ['not all that is on the GPUs fits into the memory of the host'] : []
  return [
    row('driver', facts.driver === '' ? 'unknown' : facts.driver),
    row('CUDA', version(facts.cudaVersion)),
    row('devices', String(facts.devices.length), facts.devices.length === 0 ? ['there is no GPU'] : []),
    row('checkpoint API', old === undefined ? 'available' : 'unavailable', [], old === undefined ? [] : [old]),
    row(
      'other devices',
      canRemap(facts) ? 'available' : 'unavailable',
      canRemap(facts) ? [] : ['a restore needs the GPUs of the dump: driver 580 is needed for others'],
    ),
    row('memory', `${uses === undefined ? 'unknown' : gib(needed)} needed, ${gib(free)} free`, [...unknown, ...short]),
  ]
}

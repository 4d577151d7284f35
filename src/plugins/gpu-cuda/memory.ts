/** Whether the host can hold what is on the devices: a process that gets more memory than there is would be killed for it. */
import type { GpuProcess } from '../contract/gpu.js'
import type { Host } from '../contract/host.js'
import type { ProcessFacts, Snapshot } from '../contract/job.js'
import type { Problem } from '../contract/plan.js'

const CGROUPS = '/sys/fs/cgroup'
/** Left for everything else. */
const MARGIN = 1.02

const mebibytes = (bytes: number): string => `${Math.ceil(bytes / 2 ** 20)} MiB`

export async function availableBytes(host: Host): Promise<number> {
  const kib = /^MemAvailable:\s+(\d+) kB$/m.exec((await host.readText('/proc/meminfo')) ?? '')?.[1]
  return kib === undefined ? Infinity : Number(kib) * 1024
}

const number = (text: string | undefined): number => (text === undefined || text.trim() === 'max' ? Infinity : Number(text))

/** What the memory cgroup of a process still allows, of itself and those above it. */
async function allowedBytes(host: Host, { cgroups }: ProcessFacts): Promise<{ readonly path: string; readonly bytes: number }> {
  const rows = cgroups.map((line) => /^\d+:([^:]*):(.*)$/.exec(line)).filter((row) => row !== null)
  const version1 = rows.find(([, controllers = '']) => controllers.split(',').includes('memory'))
  const path = (version1 ?? rows.find(([, controllers]) => controllers === ''))?.[2] ?? '/'
  const [root, limit, usage] = version1
    ? [`${CGROUPS}/memory`, 'memory.limit_in_bytes', 'memory.usage_in_bytes']
    : [CGROUPS, 'memory.max', 'memory.current']
  let least = { path, bytes: Infinity }
  for (let at = path; at !== '/' && at !== ''; at = at.slice(0, at.lastIndexOf('/'))) {
    const [most, used] = await Promise.all([host.readText(`${root}${at}/${limit}`), host.readText(`${root}${at}/${usage}`)])
    const bytes = number(most) - number(used ?? '0')
    if (bytes < least.bytes) least = { path: at, bytes }
  }
  return least
}

export async function memoryProblems(host: Host, { processes }: Snapshot, found: readonly GpuProcess[]): Promise<readonly Problem[]> {
  const needed = found.reduce((sum, { deviceBytes }) => sum + deviceBytes, 0) * MARGIN
  const refuse = (id: string, message: string, hint: string): readonly Problem[] => [{ severity: 'error', id, message, hint }]
  const free = await availableBytes(host)
  if (needed > free) {
    const message = `the host has not enough memory for what is on the GPU: ${mebibytes(needed)} are needed, ${mebibytes(free)} are free`
    return refuse('gpu-memory', message, 'free some memory, or dump on a host with more')
  }
  const byGroup = new Map<string, { bytes: number; allowed: number }>()
  for (const { target, deviceBytes } of found) {
    const facts = processes.find(({ pid }) => pid === target.pid)
    if (!facts) continue
    const { path, bytes } = await allowedBytes(host, facts)
    byGroup.set(path, { bytes: (byGroup.get(path)?.bytes ?? 0) + deviceBytes * MARGIN, allowed: bytes })
  }
  for (const [path, { bytes, allowed }] of byGroup) {
    if (bytes <= allowed) continue
    const message = `cgroup ${path} does not allow the memory for what is on the GPU: ${mebibytes(bytes)} are needed, ${mebibytes(Math.max(0, allowed))} are left`
    return refuse('gpu-memory-limit', message, 'raise its memory limit for the dump')
  }
  return []
}

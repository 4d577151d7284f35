/** Containers that are waited for: how soon after their program's start they are jobs, and what it costs to wait. */
import { mkdtempSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Containers } from '../../test/support/oci.js'
import { percentile, quietWorkload } from '../measure.js'
import type { Row } from '../report.js'
import { built, type World } from '../world.js'

const CONTAINERS = 100
/** The peer takes long: every so many containers. */
const PEER_EVERY = 5
const PEER_INTERVAL_MS = 500
const PROCESSES_PER_SECOND = 200
const WAITERS = 100
const IDLE_MS = 20_000

const upcoming = (containers: Containers, id: string) => ({
  jid: '',
  type: 'runc',
  options: { id, root: containers.root },
  upcoming: true,
  pidFile: '',
  gpuEnabled: false,
  timeoutMs: 0,
})

/** Nanoseconds of processor time that all threads of a process have had. */
function processorTime(pid: number): number {
  const times = readdirSync(`/proc/${pid}/task`).map((thread) =>
    Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]),
  )
  return times.reduce((sum, one) => sum + one, 0)
}

const nowNs = (): number => Number(process.hrtime.bigint())

/** As the original waits: asks the runtime, then sleeps. */
async function poll(containers: Containers, id: string): Promise<void> {
  for (; ; await sleep(PEER_INTERVAL_MS)) {
    const { code, stdout } = await containers.command('state', id)
    if (code === 0 && (JSON.parse(stdout) as { status: string }).status === 'running') return
  }
}

interface Seen {
  readonly pid: number
  readonly atNs: number
}

async function times(world: World, containers: Containers): Promise<{ ours: Seen[]; peer: Seen[] }> {
  const [ours, peer]: [Seen[], Seen[]] = [[], []]
  const once = async (wait: (id: string) => Promise<unknown>, delayMs: number): Promise<Seen> => {
    const container = containers.container('bench')
    const seen = wait(container.id).then(nowNs)
    await sleep(delayMs)
    const pid = await container.run()
    const atNs = await seen
    await container.kill()
    await container.remove()
    return { pid, atNs }
  }
  for (let round = 0; round < CONTAINERS; round++) {
    ours.push(await once((id) => world.engine.manage(upcoming(containers, id)), 20))
    if (round % PEER_EVERY === 0) peer.push(await once((id) => poll(containers, id), 20 + Math.random() * PEER_INTERVAL_MS))
  }
  return { ours, peer }
}

/** The daemon has done what there was to do: all of those who wait, wait. */
async function settled(world: World): Promise<void> {
  for (let seconds = 0, before = NaN; seconds < 30; seconds++) {
    const now = processorTime(world.daemon.pid)
    if (now === before) return
    before = now
    await sleep(1000)
  }
}

/** Share of one core, in percent, that the daemon takes. */
async function load(world: World): Promise<number> {
  const before = processorTime(world.daemon.pid)
  await sleep(IDLE_MS)
  return (100 * (processorTime(world.daemon.pid) - before)) / (IDLE_MS * 1e6)
}

async function idleCost(world: World, containers: Containers): Promise<number> {
  const cancels = Array.from({ length: WAITERS }, () => new AbortController())
  const waits = cancels.map(({ signal }) => world.engine.manage(upcoming(containers, containers.id('idle')), { signal }))
  let ended = 0
  for (const wait of waits) wait.finally(() => ended++).catch(() => {})
  await settled(world)
  const percent = await load(world)
  if (ended > 0) throw new Error(`${ended} waits ended by themselves`)
  for (const cancel of cancels) cancel.abort()
  await Promise.allSettled(waits)
  return percent
}

export async function upcomingContainers(world: World): Promise<Row[]> {
  const containers = new Containers({ dir: world.dir, id: 'bench', mark: 'CEDANA_BENCH=upcoming' })
  containers.open()
  // Not where those who wait may watch for the state directory to be made.
  const logs = mkdtempSync(join(world.dir, 'logs-'))
  const listing = join(logs, 'execs.log')
  const listener = await quietWorkload([await built(world, 'execs')], listing)
  const storm = await quietWorkload([await built(world, 'storm'), String(PROCESSES_PER_SECOND)], join(logs, 'storm.log'))
  try {
    const { ours, peer } = await times(world, containers)
    const idle = await idleCost(world, containers)
    const execs = new Map(
      readFileSync(listing, 'utf8')
        .split('\n')
        .map((line) => line.split(' ').map(Number))
        .map(([pid = 0, atNs = NaN]) => [pid, atNs]),
    )
    if (ours.some(({ pid }) => !execs.has(pid))) throw new Error('an exec was not heard of')
    // The peer, which asks the runtime, may hear of a start before there was an exec, and end what then has none.
    const late = (seen: readonly Seen[]): number[] => seen.map(({ pid, atNs }) => (atNs - (execs.get(pid) ?? atNs)) / 1e6)
    const what = `container's exec to managed, ${PROCESSES_PER_SECOND} processes/s around`
    const byPolling = { peer: late(peer), peerName: `runc state every ${PEER_INTERVAL_MS} ms`, unit: 'ms' }
    return [
      { what: `${what}, median of ${CONTAINERS}`, ours: late(ours), ...byPolling, limit: 5 },
      {
        what: `${what}, 99th percentile`,
        ours: [percentile(late(ours), 0.99)],
        ...byPolling,
        peer: [percentile(late(peer), 0.99)],
        limit: 50,
      },
      { what: `daemon with ${WAITERS} waiting, ${PROCESSES_PER_SECOND} processes/s around`, ours: [idle], limit: 1, unit: '% of a core' },
    ]
  } finally {
    storm.kill('SIGKILL')
    listener.kill('SIGKILL')
    await containers.close()
  }
}

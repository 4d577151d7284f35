/** Many jobs: how fast they start, how fast they are listed, and what they cost. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { inTurns, timed } from '../measure.js'
import type { Row } from '../report.js'
import { cedana, residentMiB, type World } from '../world.js'

const JOBS = 1000
const PARALLEL = 4

const runRequest = (jid: string, path: string, args: readonly string[]) => ({
  jid,
  type: 'process',
  options: { path, args },
  environment: { PATH: '/usr/bin:/bin' },
  workingDirectory: '/',
  stdio: 'log' as const,
  waitAttach: false,
  log: '/dev/null',
  pidFile: '',
  asRoot: false,
  gpuEnabled: false,
  windowSize: undefined,
})

/** A figure that leaves something behind is none. */
async function emptied(directory: string): Promise<void> {
  for (const until = Date.now() + 5000; readdirSync(directory).length > 0; await new Promise((done) => setTimeout(done, 20))) {
    if (Date.now() > until) throw new Error(`left behind: ${readdirSync(directory).join(' ')}`)
  }
}

export async function manyJobs(world: World, rounds: number): Promise<Row[]> {
  const idle = residentMiB(world.daemon.pid)
  const started = process.hrtime.bigint()
  let next = 0
  await Promise.all(
    Array.from({ length: PARALLEL }, async () => {
      while (next < JOBS) {
        const jid = `job-${next++}`
        await world.engine.run(runRequest(jid, '/bin/true', []))
      }
    }),
  )
  const seconds = Number(process.hrtime.bigint() - started) / 1e9

  await world.engine.run(runRequest('sleeper', '/bin/sleep', ['1000']))
  const state = readFileSync(join(world.dir, 'run/jobs/sleeper/state'), 'utf8')
  const shim = residentMiB(Number(/^shim_pid (\d+)/m.exec(state)?.[1]))
  const listing = await inTurns(rounds, {
    ps: async () => (await cedana(world, 'ps')).ms,
    node: async () => (await timed([process.execPath, '-e', '0'])).ms,
  })
  await world.engine.killJobs({ jids: ['sleeper'], all: false, signal: 0, graceMs: 0 })
  await emptied(join(world.dir, 'run/jobs'))
  return [
    { what: `cedana ps, ${JOBS} jobs`, ours: listing.ps, peer: listing.node, peerName: 'node -e 0', unit: 'ms', target: 2 },
    { what: 'daemon at rest, resident', ours: [idle], limit: 120, unit: 'MiB' },
    { what: 'shim, resident', ours: [shim], limit: 2, unit: 'MiB' },
    { what: `jobs started per second, ${JOBS} jobs`, ours: [JOBS / seconds], limit: 50, atLeast: true, unit: '1/s' },
  ]
}

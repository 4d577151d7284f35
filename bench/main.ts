/** `npm run bench [-- SCENARIO…]`: prints a table and writes bench/results/latest.json. Missed targets are shown, and are no failure. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus, release, totalmem } from 'node:os'
import { join } from 'node:path'
import { evaluate, type Row, table } from './report.js'
import { dumpAndRestoreContainer } from './scenarios/container.js'
import { dumpAndRestoreContainerd } from './scenarios/containerd.js'
import { manyJobs } from './scenarios/jobs.js'
import { dumpAndRestore } from './scenarios/process.js'
import { daemonLoad, frozenTime, limits, packedDumps, packedRestores } from './scenarios/stream.js'
import { upcomingContainers } from './scenarios/upcoming.js'
import { openWorld, type World } from './world.js'

const ROUNDS = 5

const SCENARIOS: Readonly<Record<string, (world: World) => Promise<Row[]>>> = {
  jobs: (world) => manyJobs(world, ROUNDS),
  small: (world) => dumpAndRestore(world, { name: 'small', mib: 4, rounds: 2 * ROUNDS }),
  upcoming: upcomingContainers,
  container: (world) => dumpAndRestoreContainer(world, ROUNDS),
  containerd: (world) => dumpAndRestoreContainerd(world, ROUNDS),
  memory: (world) => dumpAndRestore(world, { name: 'memory', mib: 1024, rounds: ROUNDS }),
  limits: (world) => limits(world, ROUNDS),
  frozen: (world) => frozenTime(world, ROUNDS),
  packed: (world) => packedDumps(world, ROUNDS),
  unpacked: (world) => packedRestores(world, ROUNDS),
  load: (world) => daemonLoad(world, ROUNDS),
}

const root = join(import.meta.dirname, process.env['CEDANA_BENCH_ROOT'] ?? '..')
const wanted = process.argv.slice(2)
const unknown = wanted.find((name) => !(name in SCENARIOS))
if (unknown !== undefined) {
  process.stderr.write(`no scenario ${unknown}: choose among ${Object.keys(SCENARIOS).join(', ')}\n`)
  process.exit(2)
}

const rows: Row[] = []
for (const [name, scenario] of Object.entries(SCENARIOS)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue
  process.stderr.write(`${name} …\n`)
  const world = await openWorld(root, name === 'frozen' ? { CEDANA_CHECKPOINT_MEMORY_LIMIT_MB: '1280' } : {})
  try {
    rows.push(...(await scenario(world)))
  } finally {
    await world.close()
  }
}
const results = rows.map(evaluate)
const machine = {
  kernel: release(),
  cpu: cpus()[0]?.model,
  cores: cpus().length,
  memoryGiB: Math.round(totalmem() / 2 ** 30),
  node: process.version,
}
mkdirSync(join(root, 'bench/results'), { recursive: true })
writeFileSync(join(root, 'bench/results/latest.json'), `${JSON.stringify({ date: new Date().toISOString(), machine, results }, null, 2)}\n`)
process.stdout.write(`${table(results)}\n`)

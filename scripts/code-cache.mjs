// V8's code caches for dist/cedana.cjs and dist/launcher.cjs: what this Node compiled while it ran some usual commands.
// Written beside the bundles; a Node they do not fit ignores them (see bin/run.js).
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http2'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Script } from 'node:vm'

/** Each adds what it needs to the cache of those before. */
const COMMANDS = [['--version'], ['ps'], ['exec', 'true'], ['dump', 'process', '1'], ['restore', 'job', 'job']]

/** A restore that fails when all it needs is loaded: the daemon below answers as no containerd would. */
function failingLaunch(directory, address) {
  const container = { image: '', runtime: '', options: '', labels: {}, snapshotter: '', snapshotKey: '', hasProcesses: true }
  const spec = { process: {}, root: { path: '/' } }
  const identity = { id: 'id', address, namespace: 'default' }
  const launch = { action: 'restore', identity, container, spec, isThere: false, flags: [], streams: 'none' }
  const order = { type: 'containerd', launch, launcher: { log: join(directory, 'log') }, config: { gpu: {} } }
  const file = join(directory, 'launch.json')
  writeFileSync(file, JSON.stringify(order))
  return [file]
}

/** Answers of the daemon they talk to, by method; all others are empty messages, which are valid ones too. */
const RESULT = [0x12, 0] // of a verb that reports progress: field 2
const JOB = [
  0x0a,
  3,
  ...Buffer.from('job'),
  0x12,
  7,
  ...Buffer.from('process'),
  0x18,
  1,
  0x22,
  5,
  ...Buffer.from('sleep'),
  0x60,
  0xff,
  0xff,
  0x7f,
]
const ANSWERS = { Dump: RESULT, Restore: RESULT, ListJobs: [0x0a, JOB.length, ...JOB, 0x0a, JOB.length, ...JOB] }

/** A daemon that does nothing: no real one is disturbed. */
async function listen(path) {
  const server = createServer()
  server.on('stream', (stream, headers) => {
    const message = ANSWERS[headers[':path'].split('/').pop()] ?? []
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true })
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }))
    stream.end(Buffer.from([0, 0, 0, 0, message.length, ...message]))
  })
  server.listen(path)
  await once(server, 'listening')
  return server
}

/** What ends a build that is broken off. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP']

const PROGRAMS = ['cedana', 'launcher']
const cachePath = (root, program) => join(root, 'dist', `${program}.cache`)

/** V8 tells a stale cache by little more than the length of the source: it must be gone before the source changes. */
export const dropCodeCache = (root) => PROGRAMS.forEach((program) => rmSync(cachePath(root, program), { force: true }))

export async function makeCodeCache(root) {
  for (const program of PROGRAMS) rmSync(`${cachePath(root, program)}.new`, { force: true })
  const directory = mkdtempSync(join(tmpdir(), 'cedana-cache-'))
  const address = join(directory, 'socket')
  const server = await listen(address)
  const tidy = () => rmSync(directory, { recursive: true, force: true })
  const end = () => process.exit(1)
  process.once('exit', tidy)
  for (const signal of SIGNALS) process.once(signal, end)
  const env = { ...process.env, CEDANA_PROTOCOL: 'unix', CEDANA_ADDRESS: address, CEDANA_CONFIG_DIR: directory }
  const run = async (expected, program, command) => {
    const child = spawn(process.execPath, [fileURLToPath(import.meta.url), root, program, ...command], {
      env,
      stdio: ['ignore', 'ignore', 'inherit'],
      timeout: 30_000,
    })
    const [code] = await once(child, 'exit')
    if (code !== expected) throw new Error(`code cache: ${program} ${command.join(' ')} did not run to its end`)
  }
  try {
    for (const command of COMMANDS) await run(0, 'cedana', command)
    await run(1, 'launcher', failingLaunch(directory, address))
  } finally {
    server.close()
    tidy()
    process.off('exit', tidy)
    for (const signal of SIGNALS) process.off(signal, end)
  }
  for (const program of PROGRAMS) renameSync(`${cachePath(root, program)}.new`, cachePath(root, program))
}

/** One command in this process; when it ends well, what it compiled is kept. */
function record(root, program, command) {
  const file = join(root, 'dist', `${program}.cjs`)
  const cache = `${cachePath(root, program)}.new`
  let cachedData
  try {
    cachedData = readFileSync(cache)
  } catch {
    // the first command
  }
  const script = new Script(readFileSync(file, 'latin1'), { filename: file, cachedData })
  process.on('exit', () => writeFileSync(cache, script.createCachedData()))
  process.argv = [process.execPath, join(root, 'bin', program), ...command]
  const module = { exports: {} }
  script.runInThisContext()(createRequire(file), (name) => import(name), module, module.exports, file, dirname(file))
}

if (process.argv[1] === fileURLToPath(import.meta.url)) record(process.argv[2], process.argv[3], process.argv.slice(4))

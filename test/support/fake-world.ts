/** A world for the command line: captured output, an engine of the test's own making, no process and no daemon. */
import { PassThrough } from 'node:stream'
import type { Engine, JobView } from '../../src/daemon/api/engine.js'
import { describeConfig, loadConfig } from '../../src/daemon/config.js'
import { loadBuiltins } from '../../src/plugins/index.js'
import { runCli } from '../../src/cli/run-cli.js'
import type { World } from '../../src/cli/session.js'

export interface FakeOptions {
  readonly engine?: Partial<Engine>
  readonly env?: Readonly<Record<string, string>>
  /** Of all three streams. */
  readonly isTTY?: boolean
  readonly stdin?: string | PassThrough
  /** Parts of the world that are not the usual ones. */
  readonly world?: Partial<World>
}
export interface Outcome {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
  /** What was connected to: the daemon, or the engine of this process. */
  readonly connections: readonly ('daemon' | 'local' | 'local with jobs')[]
}

interface Captured {
  readonly stream: NodeJS.WriteStream
  readonly text: () => string
}

function capture(isTTY: boolean): Captured {
  const chunks: Buffer[] = []
  const stream = Object.assign(new PassThrough(), { isTTY, columns: 80, rows: 24 })
  stream.on('data', (chunk: Buffer) => chunks.push(chunk))
  return { stream: stream as unknown as NodeJS.WriteStream, text: () => Buffer.concat(chunks).toString() }
}

function input(source: string | PassThrough, isTTY: boolean): NodeJS.ReadStream {
  const stream = typeof source === 'string' ? new PassThrough().end(source) : source
  const setRawMode = (raw: boolean): PassThrough => (stream.emit('raw', raw), stream)
  return Object.assign(stream, { isTTY, setRawMode, unref: () => stream, ref: () => stream }) as unknown as NodeJS.ReadStream
}

/** Runs one command line, without configuration file. */
export async function runFake(argv: readonly string[], options: FakeOptions = {}): Promise<Outcome> {
  const { isTTY = false, env = {} } = options
  const stdout = capture(isTTY)
  const stderr = capture(isTTY)
  const connections: Outcome['connections'][number][] = []
  const engine = { close: () => {}, ...options.engine } as Engine
  const world: World = {
    version: '1.2.3',
    env: { PATH: '/usr/bin:/bin', CEDANA_CONFIG_DIR: '/nonexistent', ...env },
    cwd: '/work/dir',
    caller: { uid: 0, gid: 0, groups: [0], pid: 1 },
    stdin: input(options.stdin ?? '', isTTY),
    stdout: stdout.stream,
    stderr: stderr.stream,
    signal: new AbortController().signal,
    holdSignals: () => {},
    isExact: (word) => !word.includes('\uFFFD'),
    loadConfig: async (sources) => loadConfig(sources).config,
    writeConfig: async () => '/nonexistent/config.json',
    describeConfig: async () => describeConfig(),
    connect: async () => {
      connections.push('daemon')
      return engine
    },
    openLocal: async (_config, { withJobs }) => {
      connections.push(withJobs ? 'local with jobs' : 'local')
      return engine
    },
    startDaemon: async () => {},
    pluginAuthor: async () => ({}) as never,
    openPluginStore: async () => ({}) as never,
    askRegistry: async () => ({ found: new Map(), unreachable: undefined, unfit: [] }),
    describePlugin: async () => ({}) as never,
    builtins: loadBuiltins,
    externals: async () => [],
    ...options.world,
  }
  const code = await runCli(world, argv)
  return { code, stdout: stdout.text(), stderr: stderr.text(), connections }
}

export const fakeJob = (parts: Partial<JobView> = {}): JobView => ({
  jid: 'train',
  type: 'process',
  pid: 4711,
  status: 'running',
  isRunning: true,
  isFrozen: false,
  gpuEnabled: false,
  log: '/var/log/cedana-output-train.log',
  logPath: '/var/log/cedana-output-train.log',
  attachable: false,
  tty: false,
  uid: 0,
  gid: 0,
  createdAt: 0,
  startedAt: 0,
  exitedAt: 0,
  exit: undefined,
  endReason: '',
  latestCheckpoint: undefined,
  checkpoints: 0,
  args: ['python3', 'train.py'],
  hostId: 'host',
  details: {},
  state: undefined,
  ...parts,
})

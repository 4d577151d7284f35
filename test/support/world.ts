/**
 * A private daemon and everything around it, for one test file: directories, socket, database, jobs. At the end nothing may be left: no process, mount,
 * socket, half-made checkpoint, open descriptor of the daemon. What is left fails the file and is then cleaned up all the same.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, openSync, closeSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll } from 'vitest'
import { connect } from '../../src/daemon/api/client.js'
import type { Engine } from '../../src/daemon/api/engine.js'
import type { Config } from '../../src/daemon/config.js'
import type { RuntimeDescription } from '../../src/plugins/description.js'
import { describedPlugins } from '../../src/plugins/packages.js'
import { Conversation, Terminal } from './conversation.js'
import { runFake } from './fake-world.js'
import {
  allPids,
  allProcesses,
  children,
  isAlive,
  killMarked,
  markedProcesses,
  openFiles,
  type ProcessInfo,
  processInfo,
} from './processes.js'
import { program } from './programs.js'
import { until } from './wait.js'

const ROOT = join(import.meta.dirname, '..', '..')
export const CEDANA = join(ROOT, 'bin', 'cedana')

export interface Outcome {
  readonly command: string
  /** 128+N when signal N ended it. */
  readonly code: number
  readonly stdout: string
  readonly stderr: string
  readonly ms: number
}
export interface CallOptions {
  readonly stdin?: string
  /** On top of the world's; undefined takes a variable away. */
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly cwd?: string
  /** Run as this user (and group of the same number). */
  readonly uid?: number
  readonly timeoutMs?: number
}
export interface Job {
  readonly jid: string
  readonly pid: number
  readonly log: string
  /** What it has written so far. */
  output(): string
  /** Waits until the output matches. */
  says(pattern: RegExp | string, timeoutMs?: number): Promise<void>
  /** Tells a test program to verify, and waits for its PASS; throws on FAIL. */
  verify(): Promise<void>
}
export interface WorldOptions {
  readonly env?: Readonly<Record<string, string>>
  /** Only directories and environment. */
  readonly withoutDaemon?: boolean
  /** A command that the daemon is started by, and becomes. */
  readonly daemonUnder?: readonly string[]
}

export class World {
  readonly id = randomBytes(4).toString('hex')
  readonly mark = `CEDANA_TEST=${this.id}`
  readonly #mounts: string[] = []
  readonly #files: string[] = []
  #daemon: ChildProcess | undefined
  #openAtStart: string[] = []
  #count = 0
  readonly #left: string[] = []
  /** Set to keep a test that wounds the daemon on purpose from being blamed for it. */
  expectsLostDaemon = false

  // Short, since a socket path may have 107 characters only.
  readonly dir = `/tmp/ct-${this.id}`

  constructor(readonly options: WorldOptions = {}) {}

  async open(): Promise<void> {
    mkdirSync(this.dir)
    for (const name of ['config', 'checkpoints', 'work']) mkdirSync(join(this.dir, name))
    process.once('exit', this.#sweep)
    if (!this.options.withoutDaemon) await this.startDaemon()
  }

  get socket(): string {
    return join(this.dir, 'cedana.sock')
  }
  get checkpoints(): string {
    return join(this.dir, 'checkpoints')
  }
  get runDir(): string {
    return join(this.dir, 'run')
  }
  get pluginDir(): string {
    return join(this.dir, 'lib')
  }
  /** Of the last restore: memory that was not left to CRIU. */
  directBytes(): number {
    return Number([...readFileSync(this.daemonLog, 'utf8').matchAll(/"directBytes":(\d+)/g)].at(-1)?.[1] ?? 0)
  }

  get daemonLog(): string {
    return join(this.dir, 'daemon.log')
  }
  get env(): Record<string, string> {
    const inherited: Record<string, string> = {}
    for (const [name, value] of Object.entries(process.env))
      if (value !== undefined && !/^(CEDANA|CONTAINER|VITEST|NODE_OPTIONS|AWS)/.test(name)) inherited[name] = value
    return {
      ...inherited,
      CEDANA_TEST: this.id,
      CEDANA_ADDRESS: this.socket,
      CEDANA_CONFIG_DIR: join(this.dir, 'config'),
      CEDANA_RUN_DIR: this.runDir,
      CEDANA_DB_PATH: join(this.dir, 'cedana.db'),
      CEDANA_CHECKPOINT_DIR: this.checkpoints,
      CEDANA_LOG_LEVEL: 'debug',
      // Not what is installed on this machine.
      CEDANA_PLUGINS_LIB_DIR: this.pluginDir,
      CEDANA_PROFILING_ENABLED: 'false',
      NO_COLOR: '1',
      ...this.options.env,
    }
  }

  // --- the daemon ---

  get daemonPid(): number {
    return this.#daemon?.pid ?? 0
  }

  async startDaemon(args: readonly string[] = []): Promise<void> {
    const log = openSync(this.daemonLog, 'a')
    const [command = CEDANA, ...rest] = [...(this.options.daemonUnder ?? []), CEDANA, 'daemon', 'start', ...args]
    const daemon = spawn(command, rest, {
      env: this.env,
      cwd: this.dir,
      detached: true,
      stdio: ['ignore', log, log],
    })
    closeSync(log)
    this.#daemon = daemon
    await until(
      'the daemon listens',
      async () => {
        if (daemon.exitCode !== null || daemon.signalCode !== null) throw new Error(`the daemon ended at its start:\n${this.#daemonTail()}`)
        return this.answers()
      },
      30_000,
    )
    this.#openAtStart = openFiles(this.daemonPid)
  }

  /** Whether a daemon serves the jobs of this world. */
  async answers(): Promise<boolean> {
    return existsSync(this.socket) && (await this.#here(['ps'], this.dir)).code === 0
  }

  /** SIGTERM and the exit code. */
  async stopDaemon(): Promise<number> {
    return this.#endDaemon('SIGTERM')
  }

  async killDaemon(): Promise<void> {
    await this.#endDaemon('SIGKILL')
  }

  async #endDaemon(signal: NodeJS.Signals): Promise<number> {
    const daemon = this.#daemon
    if (daemon === undefined) return 0
    if (daemon.exitCode === null && daemon.signalCode === null) {
      const ended = new Promise<void>((resolve) => daemon.once('exit', () => resolve()))
      daemon.kill(signal)
      const timer = setTimeout(() => daemon.kill('SIGKILL'), 15_000)
      await ended
      clearTimeout(timer)
    }
    this.#daemon = undefined
    return daemon.exitCode ?? 128 + (daemon.signalCode === 'SIGKILL' ? 9 : 15)
  }

  #daemonTail(): string {
    if (!existsSync(this.daemonLog)) return ''
    const lines = readFileSync(this.daemonLog, 'utf8').split('\n')
    return lines
      .filter((line) => !line.includes('"level":"debug"'))
      .join('\n')
      .slice(-1500)
  }

  // --- the command ---

  /** Runs `cedana ARGS` to its end, whatever that is. */
  async cedana(args: readonly string[], options: CallOptions = {}): Promise<Outcome> {
    const started = performance.now()
    const talk = this.talk(args, options)
    const timeoutMs = options.timeoutMs ?? 30_000
    const timer = setTimeout(() => talk.signal('SIGKILL'), timeoutMs)
    talk.type(options.stdin ?? '')
    talk.endInput()
    const { code } = await talk.exit
    clearTimeout(timer)
    const ms = performance.now() - started
    const late = code === 137 && ms >= timeoutMs ? `\n(killed by the test after ${timeoutMs} ms)` : ''
    return { command: `cedana ${args.join(' ')}`, code, stdout: talk.stdout, stderr: talk.stderr + late, ms }
  }

  /** As `cedana`, and throws unless it ends with 0. */
  async ok(args: readonly string[], options: CallOptions = {}): Promise<Outcome> {
    const outcome = await this.cedana(args, options)
    if (outcome.code !== 0) throw new Error(this.#story(outcome, 'failed'))
    return outcome
  }

  /** As `cedana`, and throws unless it fails as a command should: not 0, one clear line, no trace of the inside. */
  async fails(args: readonly string[], options: CallOptions = {}): Promise<Outcome> {
    return this.#failed(await this.cedana(args, options))
  }

  #failed(outcome: Outcome): Outcome {
    const complain = (what: string) => {
      throw new Error(this.#story(outcome, what))
    }
    if (outcome.code === 0) complain('should have failed')
    if (outcome.code >= 128) complain('crashed or hung')
    if (!/^Error: ./m.test(outcome.stderr)) complain('gave no `Error: ` line on stderr')
    if (/^\s+at .*[:(]|node:internal|Internal: (undefined|\[object)|\bBUG\b/m.test(outcome.stderr)) complain('showed its inside')
    return outcome
  }

  /**
   * As `ok`, in the process of the tests: the same words, requests and output, without the start of a program, which takes longer than most of what it
   * asks for. For what a test does on its way; what it is about is done by the program.
   */
  async quick(args: readonly string[], { cwd = this.work() }: Pick<CallOptions, 'cwd'> = {}): Promise<Outcome> {
    const outcome = await this.#here(args, cwd)
    if (outcome.code !== 0) throw new Error(this.#story(outcome, 'failed'))
    return outcome
  }

  /** As `fails`, in the process of the tests. */
  async refuses(args: readonly string[]): Promise<Outcome> {
    return this.#failed(await this.#here(args, this.work()))
  }

  async #here(args: readonly string[], cwd: string): Promise<Outcome> {
    const started = performance.now()
    const caller = { uid: process.getuid!(), gid: process.getgid!(), groups: process.getgroups!(), pid: process.pid }
    const connectTo = async ({ protocol, address, client, tcp }: Config): Promise<Engine> =>
      connect({ protocol, address, waitForReady: client.wait_for_ready, tokenFile: tcp.token_file })
    const externals = async ({ plugins }: Config): Promise<readonly RuntimeDescription[]> => describedPlugins(plugins)
    const openLocal = async (): Promise<never> => {
      throw new Error('what needs no daemon needs a process of its own')
    }
    const outcome = await runFake(args, { env: this.env, world: { cwd, caller, connect: connectTo, openLocal, externals } })
    return { ...outcome, command: `cedana ${args.join(' ')}`, ms: performance.now() - started }
  }

  #story(outcome: Outcome, what: string): string {
    return `\`${outcome.command}\` ${what} (exit ${outcome.code})\nstdout: ${outcome.stdout.slice(-2000)}\nstderr: ${outcome.stderr.slice(-2000)}\ndaemon:\n${this.#daemonTail()}`
  }

  /** `cedana ARGS` to talk with. */
  talk(args: readonly string[], options: CallOptions = {}): Conversation {
    return new Conversation([CEDANA, ...args], this.#spawnOptions(options))
  }

  /** `cedana ARGS` under a terminal. */
  terminal(args: readonly string[], options: CallOptions & { rows?: number; columns?: number } = {}): Terminal {
    const { rows = 24, columns = 80 } = options
    return new Terminal([CEDANA, ...args], { ...this.#spawnOptions(options), rows, columns })
  }

  #spawnOptions({ env, cwd, uid }: CallOptions): { env: NodeJS.ProcessEnv; cwd: string; uid?: number; gid?: number } {
    return { env: { ...this.env, ...env }, cwd: cwd ?? this.work(), ...(uid === undefined ? {} : { uid, gid: uid }) }
  }

  // --- things of the tests ---

  /** A job id nobody else uses (default logs all go to /var/log). */
  jid(word: string): string {
    const jid = `t${this.id}-${word}-${++this.#count}`
    this.#files.push(`/var/log/cedana-output-${jid}.log`)
    return jid
  }

  /** An empty directory. */
  work(): string {
    const path = join(this.dir, 'work', String(++this.#count))
    mkdirSync(path)
    return path
  }

  /** A test program as a job. Waits for its READY unless it is `counter` or a path. */
  async job(
    name: string,
    args: readonly string[] = [],
    options: { flags?: readonly string[]; cwd?: string; uid?: number } = {},
  ): Promise<Job> {
    const path = name.startsWith('/') ? name : await program(name)
    const jid = this.jid(path.slice(path.lastIndexOf('/') + 1))
    const cwd = options.cwd ?? this.work()
    const words = ['run', 'process', '--jid', jid, ...(options.flags ?? []), '--', path, ...args]
    const { stdout } = await (options.uid === undefined ? this.quick(words, { cwd }) : this.ok(words, { cwd, uid: options.uid }))
    const pid = Number(/Running managed process PID (\d+)/.exec(stdout)?.[1])
    const out = options.flags?.indexOf('--out') ?? -1
    const log = out >= 0 ? (options.flags?.[out + 1] ?? '') : `/var/log/cedana-output-${jid}.log`
    const job = makeJob(jid, pid, log)
    if (!name.startsWith('/') && name !== 'counter') await job.says(/^READY$/m)
    return job
  }

  /** A test program that cedana does not know: started by the test, in its own session, output in a file. Its pid identifies it. */
  async foreign(name: string, args: readonly string[] = [], options: { cwd?: string; uid?: number } = {}): Promise<Job> {
    const path = name.startsWith('/') ? name : await program(name)
    const cwd = options.cwd ?? this.work()
    const log = join(this.work(), 'output')
    const fd = openSync(log, 'a')
    const child = spawn(path, args, {
      cwd,
      env: this.env,
      detached: true,
      stdio: ['ignore', fd, fd],
      ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.uid }),
    })
    closeSync(fd)
    child.unref()
    const job = makeJob('', child.pid ?? 0, log)
    if (!name.startsWith('/') && name !== 'counter') await job.says(/^READY$/m)
    return job
  }

  /** Dumps to a fresh name below the checkpoint directory; answers the printed path. */
  async dump(target: Job, flags: readonly string[] = []): Promise<string> {
    const what = target.jid === '' ? ['process', String(target.pid)] : ['job', target.jid]
    const { stdout } = await this.quick(['dump', ...what, ...flags])
    const path = /^Dumped to (.+)$/m.exec(stdout)?.[1]
    if (path === undefined) throw new Error(`dump printed no path: ${stdout}`)
    return path
  }

  /** Rows of `ps`, as scripts cut them with awk: by column number. */
  async ps(): Promise<string[][]> {
    const { stdout } = await this.quick(['ps'])
    const [header = '', ...lines] = stdout.split('\n')
    if (!header.startsWith('JOB')) return []
    return lines.slice(0, lines.indexOf('')).map((line) => line.trim().split(/\s{2,}/))
  }

  async row(jid: string): Promise<string[] | undefined> {
    return (await this.ps()).find(([first]) => first === jid)
  }

  /** One job as `job inspect --output json` tells it. */
  async inspect(jid: string): Promise<Record<string, unknown>> {
    return JSON.parse((await this.quick(['job', 'inspect', jid, '--output', 'json'])).stdout) as Record<string, unknown>
  }

  /** Mounts a file system of a limited size, by default below a new directory; unmounted at the end. */
  smallDisk(kib: number, path = this.work()): string {
    mkdirSync(path, { recursive: true })
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${kib}k`, 'small', path])
    this.#mounts.push(path)
    return path
  }

  // --- the end ---

  #isDaemon = (info: ProcessInfo): boolean => info.pid === this.daemonPid
  #isShim = (info: ProcessInfo): boolean => info.executable.endsWith('/cedana-shim')
  #isCriu = (info: ProcessInfo): boolean => /\bcriu\b.*\bswrk\b/.test(info.command)

  /** Last resort, when the test process itself ends early. */
  #sweep = (): void => {
    killMarked(this.mark)
    for (const path of this.#mounts) execFileSync('umount', ['-l', path], { stdio: 'ignore' })
    rmSync(this.dir, { recursive: true, force: true })
  }

  /** What was left over of something that ended before: said at the end, since an afterAll that throws would leave the others out. */
  blame(failure: unknown): void {
    this.#left.push(String(failure))
  }

  /** Ends everything and says what was left over that cedana should have cleaned up. */
  async close(): Promise<void> {
    const left = this.#left
    const note = (what: string) => left.push(what)
    const describe = (info: ProcessInfo) => `process ${info.pid} (${info.state}): ${info.command.slice(0, 150)}`
    const waitFor = async (what: string, probe: () => boolean, describeRest: () => string, timeoutMs = 10_000) => {
      await until(what, probe, timeoutMs).catch(() => note(`${what}: ${describeRest()}`))
    }

    // Jobs are the tests' own. Shims end by themselves when their job has ended, CRIU when its request has.
    killMarked(this.mark, (info) => this.#isDaemon(info) || this.#isShim(info) || this.#isCriu(info))
    const helpers = () => {
      // A shim, and CRIU below it, has the environment of the tests in some cases and none in others.
      const shims = allProcesses().filter((info) => this.#isShim(info) && info.command.includes(`${this.dir}/`))
      const below = shims.flatMap(({ pid }) => children(pid)).flatMap((pid) => processInfo(pid) ?? [])
      return [...shims, ...[...below, ...markedProcesses(this.mark)].filter(this.#isCriu)]
    }
    await waitFor(
      'shims and criu end with their jobs',
      () => helpers().length === 0,
      () => helpers().map(describe).join('\n'),
    )

    if (this.#daemon !== undefined && isAlive(this.daemonPid)) {
      // Two ends of what it says to the process that calls the CUDA driver.
      const kept = () =>
        children(this.daemonPid)
          .filter(isCudaChild)
          .flatMap(() => ['socket', 'socket'])
      const extra = () => surplus(openFiles(this.daemonPid), [...this.#openAtStart, ...kept()])
      await waitFor(
        'the daemon holds no more descriptors than at its start',
        () => extra().length === 0,
        () => extra().join(' '),
      )
      const code = await this.stopDaemon()
      if (code !== 0) note(`the daemon ended with ${code}:\n${this.#daemonTail()}`)
      if (existsSync(this.socket)) note(`socket ${this.socket}`)
    } else if (this.#daemon !== undefined && !this.expectsLostDaemon) {
      note(`the daemon is gone (${this.#daemon.exitCode ?? this.#daemon.signalCode}):\n${this.#daemonTail()}`)
    }

    const drivers = () => allPids().filter((pid) => isCudaChild(pid) && processInfo(pid)?.command.includes(`${this.dir}/`) === true)
    await waitFor(
      'what calls the CUDA driver ends with its daemon',
      () => drivers().length === 0,
      () => drivers().join(' '),
    )
    await waitFor(
      'what others have started for the daemon or the tests ends with them',
      () => markedProcesses(this.mark).length === 0,
      () => killMarked(this.mark).map(describe).join('\n'),
    )
    // What was killed may still be about to close its files there.
    for (const path of this.#mounts)
      await waitFor(
        `${path} is unmounted`,
        () => succeeds('umount', path),
        () => 'busy',
      )
    for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
      const point = line.split(' ')[4] ?? ''
      if (!point.startsWith(`${this.dir}/`)) continue
      note(`mount ${point}`)
      execFileSync('umount', ['-l', point])
    }
    for (const path of filesBelow(this.runDir)) if (statSync(path, { throwIfNoEntry: false })?.isSocket() === true) note(`socket ${path}`)
    for (const path of filesBelow(this.checkpoints)) if (/[.](partial|tmp)\b/.test(path)) note(`half-made ${path}`)
    for (const path of this.#files) rmSync(path, { force: true })
    process.off('exit', this.#sweep)
    if (process.env.CEDANA_KEEP === undefined) rmSync(this.dir, { recursive: true, force: true, maxRetries: 10 })
    if (left.length > 0) throw new Error(`left over:\n${left.join('\n')}`)
  }
}

function makeJob(jid: string, pid: number, log: string): Job {
  const output = () => (existsSync(log) ? readFileSync(log, 'utf8') : '')
  const says = async (pattern: RegExp | string, timeoutMs = 10_000) => {
    const regex = typeof pattern === 'string' ? new RegExp(`^${pattern}$`, 'm') : pattern
    await until(`${jid || pid} says ${regex}`, () => regex.test(output()), timeoutMs).catch((error: unknown) => {
      throw new Error(`${String(error)}; it said:\n${output().slice(-2000)}`)
    })
  }
  const verify = async () => {
    process.kill(pid, 'SIGUSR1')
    await says(/^(PASS|FAIL.*)$/m)
    const verdict = /^FAIL.*$/m.exec(output())
    if (verdict !== null) throw new Error(verdict[0])
  }
  return { jid, pid, log, output, says, verify }
}

function succeeds(file: string, ...args: readonly string[]): boolean {
  try {
    execFileSync(file, args, { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

const isCudaChild = (pid: number): boolean => processInfo(pid)?.command.includes('cuda-child') === true

const filesBelow = (path: string): string[] =>
  existsSync(path) ? readdirSync(path, { recursive: true, encoding: 'utf8' }).map((name) => join(path, name)) : []

/** What `now` has more of than `before`; sockets and pipes are counted by kind, since their numbers differ. */
function surplus(now: readonly string[], before: readonly string[]): string[] {
  const kind = (target: string) => target.replace(/:\[\d+\]$/, '')
  // The first watched process makes the one epoll that all watches share, the first watched directory the one inotify.
  const rest = [...before.map(kind), 'anon_inode:[eventpoll]', 'anon_inode:inotify']
  return now.filter((target) => {
    const at = rest.indexOf(kind(target))
    if (at < 0) return true
    rest.splice(at, 1)
    return false
  })
}

/** The world of a test file: made before its tests, taken down and judged after them. */
export function useWorld(options: WorldOptions = {}): World {
  const world = new World(options)
  beforeAll(() => world.open(), 60_000)
  afterAll(() => world.close(), 120_000)
  return world
}

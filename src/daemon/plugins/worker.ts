/**
 * A process that runs the code of one plugin. A thread would not do: nothing ends one that waits in a system call, it shares descriptors and signals with
 * the daemon, and memory outside of V8's heap is not bounded for it.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Log } from '../../plugins/contract/host.js'
import type { RuntimeDescription } from '../../plugins/description.js'
import { Peer, type Scope } from './peer.js'
import type { LastWords, WorkerCalls } from './worker-calls.js'

const PROGRAM = fileURLToPath(new URL('../../../dist/plugin-worker.cjs', import.meta.url))
const MEMORY_MIB = 512
/** The part of it that is V8's, which then says what it lacks. */
const HEAP_MIB = 384
/** Without a core file, and never longer than we are: one that computes would not notice that it is alone. */
const CONFINE = 'ulimit -c 0; ulimit -d "$0"; exec setpriv --pdeathsig KILL -- "$@"'
/** For what it has written last to be read, should somebody else have it open. */
const LAST_WORDS_MS = 1000
const PING_MS = 5000
const SAID_CHARACTERS = 1000
/** What V8 and the C++ library say when there is no memory for them. */
const EXHAUSTED = /FATAL ERROR: .*(alloc|memory)|bad_alloc/i
/** Between two reads of what it prints. */
const PRINT_MS = 20

/** The process of a plugin has ended. The message says how. */
export class WorkerEnded extends Error {
  /** It was us who ended it, for something else. */
  readonly byUs: boolean
  constructor(message: string, { byUs = false }: { readonly byUs?: boolean } = {}) {
    super(message)
    this.byUs = byUs
  }
}

export interface WorkerOptions {
  /** Of the plugin, or its directory. */
  readonly name: string
  readonly log: Log
  readonly loadTimeoutMs: number
  /** In place of ours. */
  readonly temporaryDirectory?: string | undefined
}

export class PluginWorker {
  readonly #child: ChildProcess
  readonly #peer: Peer
  readonly #onEnd: ((ended: WorkerEnded) => void)[] = []
  #onRelease: () => void = () => undefined
  #ended: WorkerEnded | undefined
  #killed: WorkerEnded | undefined
  #printed = ''
  #isExhausted = false
  #uncaught: string | undefined
  #afterExit: NodeJS.Timeout | undefined

  private constructor(private readonly options: WorkerOptions) {
    const { temporaryDirectory } = options
    const own = temporaryDirectory === undefined ? [] : ['env', `TMPDIR=${temporaryDirectory}`]
    const program = [process.execPath, `--max-old-space-size=${HEAP_MIB}`, PROGRAM]
    // In a session of its own: what a terminal sends to the caller is not for it.
    this.#child = spawn('sh', ['-c', CONFINE, String(MEMORY_MIB * 1024), ...own, ...program], {
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      serialization: 'advanced',
      detached: true,
      cwd: '/',
    })
    this.#peer = new Peer(
      (message) => {
        if (this.#child.connected) this.#child.send(message as object, () => undefined)
      },
      () => undefined,
      () => this.#onRelease(),
    )
    for (const stream of [this.#child.stdout, this.#child.stderr]) stream?.on('data', (data: Buffer) => this.#print(stream, data))
    this.#child.on('message', (message) => this.#receive(message))
    this.#child.on('error', ({ message }) => this.#end(new WorkerEnded(`its process cannot be started: ${message}`)))
    this.#child.on('close', () => this.#end(this.#why()))
    this.#child.on('exit', () => {
      this.#killSession()
      this.#afterExit = setTimeout(() => this.#end(this.#why()), LAST_WORDS_MS)
      for (const stream of [this.#child.stdout, this.#child.stderr]) stream?.resume()
    })
  }

  /** Starts one and has it load the code. Throws PLUGIN_FAILED. */
  static async start(
    entry: string,
    options: WorkerOptions,
  ): Promise<{ readonly worker: PluginWorker; readonly description: RuntimeDescription }> {
    const worker = new PluginWorker(options)
    const { loadTimeoutMs } = options
    const timer = setTimeout(() => void worker.kill(`did not load within ${loadTimeoutMs / 1000} s`), loadTimeoutMs)
    try {
      return { worker, description: await worker.ask('load', [entry]) }
    } catch (thrown) {
      await worker.kill('is not needed')
      if (!(thrown instanceof WorkerEnded)) throw thrown
      throw new CedanaError('PLUGIN_FAILED', thrown.byUs ? thrown.message : `its code fails as it is loaded: ${thrown.message}`)
    } finally {
      clearTimeout(timer)
    }
  }

  /** See `Peer.call`. Throws `WorkerEnded` when the process is not there any more. */
  ask<K extends keyof WorkerCalls>(name: K, args: Parameters<WorkerCalls[K]>, scope?: Scope): ReturnType<WorkerCalls[K]> {
    return this.#peer.call([name, ...args], scope) as ReturnType<WorkerCalls[K]>
  }

  /** Functions of it that could still be called. */
  get held(): number {
    return this.#peer.held
  }

  /** There are fewer of them. */
  onRelease(listener: () => void): void {
    this.#onRelease = listener
  }

  onEnd(listener: (ended: WorkerEnded) => void): void {
    this.#onEnd.push(listener)
  }

  /** Whether it does anything at all. */
  async answers(): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<false>((resolve) => (timer = setTimeout(resolve, PING_MS, false)))
    const pong = this.ask('ping', []).then(
      () => true,
      () => false,
    )
    return Promise.race([pong, late]).finally(() => clearTimeout(timer))
  }

  /** With whatever it has started itself. Resolves when it is gone. */
  kill(why: string): Promise<void> {
    this.#kill(why)
    return this.#ended ? Promise.resolve() : new Promise((resolve) => this.#onEnd.push(() => resolve()))
  }

  #kill(why: string): void {
    if (this.#ended || this.#killed) return
    this.#killed = new WorkerEnded(why, { byUs: true })
    this.#peer.close(this.#killed)
    const { exitCode, signalCode } = this.#child
    if (exitCode === null && signalCode === null) this.#killSession()
  }

  /** What it has started itself does not outlive it, unless it has taken itself out of the session's first group. */
  #killSession(): void {
    const { pid } = this.#child
    try {
      if (pid !== undefined) process.kill(-pid, 'SIGKILL')
    } catch {
      // It has not got its session yet, or nobody is in it any more.
      this.#child.kill('SIGKILL')
    }
  }

  /** Whether the program of ours waits for it to end. */
  keep(isBusy: boolean): void {
    const change = isBusy ? 'ref' : 'unref'
    const streams = [this.#child.stdout, this.#child.stderr] as unknown as readonly { ref(): void; unref(): void }[]
    for (const one of [this.#child, this.#child.channel, ...streams]) one?.[change]()
  }

  #receive(message: unknown): void {
    if (typeof message === 'object' && message !== null && 'uncaught' in message) this.#uncaught = (message as LastWords).uncaught
    else this.#peer.receive(message)
  }

  /** It may print without end: that is not to keep us from other things. */
  #print(stream: NonNullable<ChildProcess['stdout']>, data: Buffer): void {
    const text = data.toString()
    const printed = this.#printed + text
    this.#isExhausted ||= EXHAUSTED.test(printed)
    this.#printed = printed.slice(-SAID_CHARACTERS)
    this.options.log.info({ plugin: this.options.name, text: text.slice(0, SAID_CHARACTERS) }, 'plugin printed')
    if (this.#afterExit !== undefined) return
    stream.pause()
    setTimeout(() => stream.resume(), PRINT_MS).unref()
  }

  #why(): WorkerEnded {
    if (this.#killed) return this.#killed
    const { exitCode, signalCode } = this.#child
    if (this.#uncaught !== undefined) return new WorkerEnded(`${this.#uncaught} (thrown where nothing waited for it)`)
    if (signalCode === 'SIGABRT' && this.#isExhausted) return new WorkerEnded(`it took more than ${MEMORY_MIB} MiB of memory`)
    return new WorkerEnded(signalCode === null ? `it ended its process (exit code ${exitCode})` : `its process was ended by ${signalCode}`)
  }

  #end(ended: WorkerEnded): void {
    if (this.#ended) return
    this.#ended = ended
    clearTimeout(this.#afterExit)
    this.#peer.close(ended)
    for (const listener of this.#onEnd) listener(ended)
  }
}

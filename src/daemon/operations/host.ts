/** What a plugin is given to touch the machine with. */
import { execFile } from 'node:child_process'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { CudaDriver } from '../../plugins/contract/cuda.js'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { ExecResult, Host, Log } from '../../plugins/contract/host.js'
import type { Target } from '../../plugins/contract/job.js'
import type { Registry } from '../../plugins/registry.js'
import type { Verb } from '../../plugins/contract/runtime.js'
import * as processes from '../host/processes.js'
import { HostWakeups } from '../host/wakeups.js'

/** Of the environment of the operations. */
interface HostParts {
  readonly runtimes: Registry
  readonly log: Log
  readonly cuda: CudaDriver
  readonly config: { readonly run_dir: string }
}

const MAX_OUTPUT_BYTES = 1024 * 1024
/** From when a program is told to end until it is made to. */
const KILL_MS = 2000

function exec(argv: readonly [string, ...string[]], timeoutMs: number | undefined, signal: AbortSignal): Promise<ExecResult> {
  const [file, ...args] = argv
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(CedanaError.from(signal.reason))
    const child = execFile(file, args, { maxBuffer: MAX_OUTPUT_BYTES, timeout: timeoutMs ?? 0, signal }, (error, stdout, stderr) => {
      if (error === null) resolve({ code: 0, stdout, stderr })
      else if (typeof error.code === 'number') resolve({ code: error.code, stdout, stderr })
      else if (error.name === 'AbortError') reject(CedanaError.from(error))
      else
        reject(
          new CedanaError('HOST_UNFIT', `cannot run ${file}: ${error.code === 'ENOENT' ? 'no such program' : error.message}`, {
            cause: error,
          }),
        )
    })
    const onAbort = (): void => {
      const end = setTimeout(() => child.kill('SIGKILL'), KILL_MS)
      child.once('exit', () => clearTimeout(end))
    }
    signal.addEventListener('abort', onAbort, { once: true })
    child.once('exit', () => signal.removeEventListener('abort', onAbort))
  })
}

/** Which processes of a frozen tree were stopped already: for the time until it is unfrozen, by whichever daemon. */
class FrozenTrees {
  constructor(private readonly directory: string) {}

  #file({ pid, startTicks }: Target): string {
    return join(this.directory, `${pid}-${startTicks}.json`)
  }

  async remember(target: Target, stoppedBefore: readonly string[]): Promise<void> {
    await mkdir(this.directory, { recursive: true, mode: 0o700 })
    // Frozen twice, the first time counts: by then all of it is stopped.
    await writeFile(this.#file(target), JSON.stringify(stoppedBefore), { flag: 'wx', mode: 0o600 }).catch((thrown: unknown) => {
      if ((thrown as NodeJS.ErrnoException).code !== 'EEXIST') throw thrown
    })
  }

  async take(target: Target): Promise<readonly string[]> {
    const text = await processes.readText(this.#file(target))
    await rm(this.#file(target), { force: true })
    return text === undefined ? [] : (JSON.parse(text) as string[])
  }
}

export function hostFor({ runtimes, log, cuda, config }: HostParts, signal: AbortSignal): Host {
  const frozen = new FrozenTrees(join(config.run_dir, 'frozen'))
  const host: Host = {
    log,
    signal,
    cuda,
    identify: processes.identify,
    brief: processes.brief,
    inspect: processes.inspect,
    kill: processes.kill,
    stopTree: async (target) => {
      await frozen.remember(target, await processes.stopTree(target))
    },
    continueTree: async (target) => {
      await processes.continueTree(target, await frozen.take(target))
    },
    // These are of this host or of one made of it, which may have another signal.
    wakeups() {
      return new HostWakeups(this.signal, log)
    },
    readText: processes.readText,
    exists: processes.exists,
    exec(argv, options) {
      return exec(argv, options?.timeoutMs, this.signal)
    },
    async delegate(runtime, verb, ...args) {
      const method = (await runtimes.verb(runtime, verb as Verb)) as (host: Host, ...rest: readonly unknown[]) => Promise<never>
      return method(this, ...args)
    },
  }
  return host
}

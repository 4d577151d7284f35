/** What a plugin is given to touch the machine with. */
import { execFile } from 'node:child_process'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { ExecResult, Host, Log } from '../../plugins/contract/host.js'
import type { Registry } from '../../plugins/registry.js'
import type { Verb } from '../../plugins/contract/runtime.js'
import * as processes from '../host/processes.js'

const MAX_OUTPUT_BYTES = 1024 * 1024
const SIGSTOP = 19
const SIGCONT = 18

function exec(argv: readonly [string, ...string[]], timeoutMs: number | undefined, signal: AbortSignal): Promise<ExecResult> {
  const [file, ...args] = argv
  return new Promise((resolve, reject) => {
    execFile(file, args, { maxBuffer: MAX_OUTPUT_BYTES, timeout: timeoutMs ?? 0, signal }, (error, stdout, stderr) => {
      if (error === null) resolve({ code: 0, stdout, stderr })
      else if (typeof error.code === 'number') resolve({ code: error.code, stdout, stderr })
      else reject(new CedanaError('HOST_UNFIT', `cannot run ${file}: ${error.message}`, { cause: error }))
    })
  })
}

export function hostFor(runtimes: Registry, log: Log, signal: AbortSignal): Host {
  const host: Host = {
    log,
    signal,
    identify: processes.identify,
    inspect: processes.inspect,
    kill: processes.kill,
    stopTree: async (target) => {
      await processes.killTree(target, SIGSTOP)
    },
    continueTree: async (target) => {
      await processes.killTree(target, SIGCONT)
    },
    readText: processes.readText,
    exec: (argv, options) => exec(argv, options?.timeoutMs, signal),
    delegate: async (runtime, verb, ...args) => {
      const method = (await runtimes.verb(runtime, verb as Verb)) as (host: Host, ...rest: readonly unknown[]) => Promise<never>
      return method(host, ...args)
    },
  }
  return host
}

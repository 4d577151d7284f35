/** The program of a process that runs the code of one plugin: `dist/plugin-worker.cjs`. It ends with the daemon, and whenever it is killed. */
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Host } from '../../plugins/contract/host.js'
import type { Verb } from '../../plugins/contract/runtime.js'
import { parseOptions } from '../../plugins/parse-options.js'
import { hostOver, type HostService, launchOver } from './host-proxy.js'
import { type LoadedCode, loadCode } from './load.js'
import { type Callable, Peer } from './peer.js'
import type { LastWords, WorkerCalls } from './worker-calls.js'

let loaded: LoadedCode | undefined
const code = (): LoadedCode => {
  if (loaded) return loaded
  throw new CedanaError('BUG', 'the plugin is not loaded')
}

const calls: WorkerCalls = {
  load: async (entry) => {
    loaded = await loadCode(entry)
    return loaded.description
  },
  parse: async (verb, given) => parseOptions(code().manifest, verb, given),
  verb: async (name: Verb, service: HostService, signal, ...rest) => {
    const method = code().verbs[name] as (host: Host, ...all: readonly unknown[]) => unknown
    const [context, ...others] = rest
    const args = name === 'launch' ? [launchOver(context as never), ...others] : rest
    return method(hostOver(service, signal), ...args)
  },
  ping: async () => undefined,
}

const send = (message: unknown): void => void process.send?.(message)
const peer = new Peer(send, (name, ...args) => (calls[name as keyof WorkerCalls] as Callable)(...args))
process.on('message', (message) => peer.receive(message))
process.on('disconnect', () => process.exit())
// A failure that nobody waits for is not one of those that somebody waits for.
process.on('unhandledRejection', (reason) => console.error('unhandled failure:', reason))
// After something is thrown from a timer, say, nobody knows what state the plugin is in.
process.on('uncaughtException', (error: unknown) => {
  const words: LastWords = { uncaught: error instanceof Error ? error.message : String(error) }
  process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
  process.send?.(words, undefined, {}, () => process.exit(1))
})

/** What the process of a plugin can be asked for: `peer.call([name, …])`. */
import type { ParsedOptions } from '../../plugins/contract/options.js'
import type { Verb } from '../../plugins/contract/runtime.js'
import type { RuntimeDescription } from '../../plugins/description.js'
import type { HostService } from './host-proxy.js'

export interface WorkerCalls {
  /** Runs the code, once. `entry`: path of the module that exports `plugin`. */
  load(entry: string): Promise<RuntimeDescription>
  /** Options of a verb, checked. */
  parse(verb: string, given: ParsedOptions): Promise<ParsedOptions>
  verb(name: Verb, host: HostService, signal: AbortSignal, ...rest: readonly unknown[]): Promise<unknown>
  /** Answered by whoever does not compute without end. */
  ping(): Promise<void>
}

/** What it says last of a failure that nobody waited for. */
export interface LastWords {
  readonly uncaught: string
}

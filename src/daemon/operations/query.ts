import type { Host } from '../../plugins/contract/host.js'
import type { QueryResult } from '../../plugins/contract/runtime.js'
import type { ParsedOptions } from '../../plugins/contract/options.js'
import { visiblePart } from './authorize.js'
import type { Environment } from './environment.js'
import { hostFor } from './host.js'
import type { Call } from './verbs.js'

export async function query(env: Environment, call: Call, request: { type: string; options: ParsedOptions }): Promise<QueryResult> {
  const ask = await env.runtimes.verb(request.type, 'query')
  const host = hostFor(env, call.signal)
  const inspect: Host['inspect'] = async (target) => visiblePart(call.caller, await host.inspect(target))
  return ask({ ...host, inspect }, await env.runtimes.options(request.type, 'query', request.options))
}

/** Verbs of external plugins: they end in time, whatever they do, and what they throw or return names the plugin when it is not what was agreed. */
import { z } from 'zod'
import { SEVERITIES } from './contract/plan.js'
import { CedanaError } from './contract/errors.js'
import type { Host } from './contract/host.js'
import type { OptionSchemas } from './contract/options.js'
import type { RuntimeVerbs, Verb } from './contract/runtime.js'

type Method<V extends Verb> = RuntimeVerbs<OptionSchemas>[V]

/** These take as long as they take: the caller's time is theirs. */
const UNLIMITED: readonly Verb[] = ['upcoming', 'launch']

const target = z.object({ pid: z.int().positive(), startTicks: z.string(), bootId: z.string() })
const problems = z.array(z.object({ severity: z.enum(SEVERITIES), id: z.string(), message: z.string() }))
const object = z.record(z.string(), z.unknown())
const attachments = z.array(z.object({ name: z.string().regex(/^[^/]+$/), content: z.instanceof(Uint8Array) }))
const program = z.object({
  argv: z.array(z.string()).min(1),
  environment: z.record(z.string(), z.string()),
  workingDirectory: z.string(),
  user: z.object({ uid: z.int(), gid: z.int(), groups: z.array(z.int()) }),
})
/** As much of what a verb returns as the daemon would stumble over. */
const RESULTS: Readonly<Partial<Record<Verb, z.ZodType>>> = {
  run: program.extend({ problems }),
  resolve: target,
  upcoming: target,
  dump: z.object({ criu: object, attachments, problems }),
  restore: z.object({ criu: object, inherit: z.array(z.object({ key: z.string(), from: object })), problems, program: program.optional() }),
  query: z.object({
    columns: z.array(z.string()),
    rows: z.array(z.object({ cells: z.record(z.string(), z.string()) })),
    messages: z.array(z.string()),
  }),
}

function checked(name: string, verb: Verb, result: unknown): unknown {
  const [issue] = RESULTS[verb]?.safeParse(result).error?.issues ?? []
  if (issue === undefined) return result
  const at = issue.path.length === 0 ? '' : ` at ${issue.path.join('.')}`
  throw new CedanaError('PLUGIN_FAILED', `plugin ${name} gave a result of ${verb} that is none${at}: ${issue.message}`)
}

function explained(name: string, verb: Verb, thrown: unknown): CedanaError {
  const error = CedanaError.from(thrown)
  return error.code === 'BUG'
    ? new CedanaError('PLUGIN_FAILED', `plugin ${name} failed in ${verb}: ${error.message}`, { cause: thrown })
    : error
}

export function guarded<V extends Verb>(name: string, verb: V, method: Method<V>, limitMs: number): Method<V> {
  const call = method as (host: Host, ...rest: readonly unknown[]) => Promise<unknown>
  const guard = async (host: Host, ...rest: readonly unknown[]): Promise<unknown> => {
    const limit = new AbortController()
    const timer = setTimeout(
      () => limit.abort(new CedanaError('TIMEOUT', `plugin ${name} did not finish ${verb} within ${limitMs / 1000} s`)),
      limitMs,
    )
    if (limitMs === 0 || UNLIMITED.includes(verb)) clearTimeout(timer)
    const signal = AbortSignal.any([host.signal, limit.signal])
    const given = new AbortController()
    try {
      const givenUp = new Promise<never>((_, reject) => {
        const giveUp = (): void => reject(signal.reason as Error)
        signal.addEventListener('abort', giveUp, { signal: given.signal })
        if (signal.aborted) giveUp()
      })
      const work = (async () => call({ ...host, signal }, ...rest))()
      // It may fail when nobody waits for it any more.
      work.catch(() => undefined)
      return checked(name, verb, await Promise.race([work, givenUp]))
    } catch (thrown) {
      throw limit.signal.aborted ? limit.signal.reason : explained(name, verb, thrown)
    } finally {
      clearTimeout(timer)
      given.abort()
    }
  }
  return guard as Method<V>
}

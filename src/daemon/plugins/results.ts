/** What verbs of external plugins return or throw names the plugin when it is not what was agreed. */
import { z } from 'zod'
import { CedanaError } from '../../plugins/contract/errors.js'
import { SEVERITIES } from '../../plugins/contract/plan.js'
import type { Verb } from '../../plugins/contract/runtime.js'

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
  save: z.custom<unknown>((made) => typeof made === 'function', 'not a function'),
  restore: z.object({ criu: object, inherit: z.array(z.object({ key: z.string(), from: object })), problems, program: program.optional() }),
  query: z.object({
    columns: z.array(z.string()),
    rows: z.array(z.object({ cells: z.record(z.string(), z.string()) })),
    messages: z.array(z.string()),
  }),
}

/** Throws PLUGIN_FAILED when it is none. */
export function checkedResult(name: string, verb: Verb, result: unknown): unknown {
  const [issue] = RESULTS[verb]?.safeParse(result).error?.issues ?? []
  if (issue === undefined) return result
  const at = issue.path.length === 0 ? '' : ` at ${issue.path.join('.')}`
  throw new CedanaError('PLUGIN_FAILED', `plugin ${name} gave a result of ${verb} that is none${at}: ${issue.message}`)
}

/** Its refusals are its own, its mistakes carry its name. */
export function explainedFailure(name: string, verb: string, thrown: unknown): CedanaError {
  const error = CedanaError.from(thrown)
  return error.code === 'BUG'
    ? new CedanaError('PLUGIN_FAILED', `plugin ${name} failed in ${verb}: ${error.message}`, { cause: thrown })
    : error
}

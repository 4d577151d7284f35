import { CedanaError } from './contract/errors.js'
import type { ParsedOptions } from './contract/options.js'
import type { RuntimeManifest } from './contract/runtime.js'

/** Options of a verb, checked. Throws BAD_OPTIONS naming the option. */
export function parseOptions({ name, options }: RuntimeManifest, verb: string, given: ParsedOptions): ParsedOptions {
  const schema = options[verb]
  if (!schema) {
    const [unknown] = Object.keys(given)
    if (unknown !== undefined) throw new CedanaError('BAD_OPTIONS', `${name} takes no option ${unknown} here`)
    return {}
  }
  const parsed = schema.safeParse(given)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  const at = issue?.path.join('.') ?? ''
  throw new CedanaError('BAD_OPTIONS', at === '' ? (issue?.message ?? 'bad options') : `${issue?.message ?? 'bad value'}: ${at}`, {
    detail: { option: at },
  })
}

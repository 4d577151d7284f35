/** A plugin as data: all that flags, help, lists and the feature matrix need of it, so that none of them runs its code. */
import { z } from 'zod'
import { SUPPORT } from './contract/capability.js'
import { CedanaError } from './contract/errors.js'
import type { OptionsDescription, OptionSchema } from './contract/options.js'
import { type Feature, FEATURES, PLUGIN_NAME, type RuntimeManifest, type Verb, VERBS } from './contract/runtime.js'

export interface RuntimeDescription extends Pick<
  RuntimeManifest,
  'kind' | 'name' | 'summary' | 'verbs' | 'instead' | 'features' | 'requires'
> {
  readonly options: Readonly<Record<string, OptionsDescription>>
}

/** A manifest or a description, whichever there is. */
export interface DescribedRuntime extends Omit<RuntimeDescription, 'options'> {
  readonly options: Readonly<Partial<Record<string, OptionSchema | OptionsDescription>>>
}

export function unsupported({ name, instead }: Pick<DescribedRuntime, 'name' | 'instead'>, verb: Verb): CedanaError {
  const hint = instead?.[verb]
  return new CedanaError('VERB_UNSUPPORTED', `${verb} is not supported for ${name}`, hint === undefined ? {} : { hint })
}

export const isSchema = (options: OptionSchema | OptionsDescription): options is OptionSchema => 'safeParse' in options

export const describeOptions = (options: OptionSchema | OptionsDescription): OptionsDescription =>
  isSchema(options) ? z.toJSONSchema(options, { io: 'output', unrepresentable: 'any' }) : options

export function describeRuntime({ kind, name, summary, verbs, instead, features, requires, options }: RuntimeManifest): RuntimeDescription {
  const described = Object.entries(options).map(([verb, schema]) => [verb, schema && describeOptions(schema)] as const)
  // What JSON does not hold is not data.
  return JSON.parse(
    JSON.stringify({ kind, name, summary, verbs, instead, features, requires, options: Object.fromEntries(described) }),
  ) as never
}

const keys = <K extends string>(table: Readonly<Record<K, string>>): [K, ...K[]] => Object.keys(table) as [K, ...K[]]
const support = z.enum(SUPPORT)
const Description = z.strictObject({
  kind: z.literal('runtime'),
  name: z.string().regex(PLUGIN_NAME),
  summary: z.string().min(1).max(200),
  verbs: z.partialRecord(z.enum(keys<Verb>(VERBS)), support),
  instead: z.partialRecord(z.enum(keys<Verb>(VERBS)), z.string().min(1).max(400)).optional(),
  features: z.partialRecord(z.enum(keys<Feature>(FEATURES)), support),
  requires: z.array(
    z.union([
      z.strictObject({ binary: z.string().min(1), version: z.string().optional() }),
      z.strictObject({ criu: z.string() }),
      z.strictObject({ kernel: z.string() }),
      z.strictObject({ capability: z.string() }),
      z.strictObject({ root: z.literal(true) }),
    ]),
  ),
  options: z.record(z.string(), z.looseObject({ type: z.literal('object') })),
})

/** Storage and GPUs are the program's own. */
export function refuseKind(kind: unknown): void {
  if (kind === 'runtime') return
  const words =
    kind === 'storage' || kind === 'gpu' ? `a plugin of kind ${kind} cannot be added yet` : `there are no plugins of kind ${String(kind)}`
  throw new CedanaError('BAD_OPTIONS', `${words}: only runtimes can be added`)
}

/** What a file says of a plugin, checked. `where`: what is wrong when it is. */
export function parseDescription(value: unknown, where: string): RuntimeDescription {
  if (typeof value === 'object' && value !== null && 'kind' in value) refuseKind(value.kind)
  const parsed = Description.safeParse(value)
  if (parsed.success) return parsed.data as RuntimeDescription
  const [issue] = parsed.error.issues
  throw new CedanaError('BAD_OPTIONS', `${where}: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'not the description of a plugin'}`)
}

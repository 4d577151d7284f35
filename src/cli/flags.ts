/** The options of a plugin's verb, as flags and arguments of a command and back: the schema says everything. */
import { Argument, Option } from 'commander'
import type { OptionMeta, OptionsDescription, OptionSchema, ParsedOptions } from '../plugins/contract/options.js'
import type { CliCommand } from './command.js'
import { CliError } from './exit-codes.js'
import type { World } from './session.js'
import { absolute } from './shared-flags.js'

interface Property extends Partial<OptionMeta> {
  readonly type?: string
  readonly enum?: readonly string[]
  readonly default?: unknown
  readonly items?: Property
  readonly anyOf?: readonly Property[]
}
interface Field {
  readonly key: string
  readonly flag: string
  readonly property: Property
  readonly isRequired: boolean
}

const kebab = (key: string): string => key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)

/** A number, or text that is made one. */
export const takesNumber = ({ type, anyOf = [] }: Property): boolean => type === 'integer' || type === 'number' || anyOf.some(takesNumber)

/** Of a plugin that is part of the program, or the description of one that is not. */
export type Options = OptionSchema | OptionsDescription

/** Loads zod: only commands with options of plugins come here. */
export async function fieldsOf(options: Options | undefined): Promise<readonly Field[]> {
  if (options === undefined) return []
  const { describeOptions } = await import('../plugins/description.js')
  const { properties = {}, required = [] } = describeOptions(options) as {
    properties?: Record<string, Property>
    required?: string[]
  }
  return Object.entries(properties).map(([key, property]) => ({
    key,
    flag: kebab(key),
    property,
    isRequired: required.includes(key) && property.default === undefined,
  }))
}

const append = (value: string, previous: readonly string[] | undefined): readonly string[] => [...(previous ?? []), value]

const repeat = (value: string, previous: readonly string[] | undefined): readonly string[] => [
  ...(previous ?? []),
  ...value.split(',').filter(Boolean),
]

function toOption({ flag, property }: Field, prefix: string, world: World): Option {
  const { type, description = '', short, default: fallback } = property
  const isDefault = fallback !== undefined && fallback !== false && fallback !== '' && !(Array.isArray(fallback) && fallback.length === 0)
  const { variable: named, otherwise } = property
  const known = [
    ...(named === undefined ? [] : [`$${named}`]),
    ...(isDefault ? [JSON.stringify(fallback)] : otherwise === undefined ? [] : [otherwise]),
  ]
  const text = `${prefix}${description}${known.length > 0 ? ` (default: ${known.join(' or ')})` : ''}`
  const lead = short === undefined ? '' : `-${short}, `
  const value = property.value ?? (type === 'integer' || type === 'number' ? 'N' : flag.toUpperCase().replaceAll('-', '_'))
  const option =
    type === 'boolean'
      ? new Option(`${lead}--${fallback === true ? 'no-' : ''}${flag}`, text)
      : new Option(`${lead}--${flag} <${value}>`, text)
  if (property.enum !== undefined) option.choices(property.enum)
  if (type === 'array') option.argParser(property.verbatim === true ? append : repeat)
  if (property.path === true) option.argParser((path: string) => absolute(world, path))
  return option.hideHelp(property.hidden === true)
}

const label = ({ key, property }: Field): string =>
  property.value ?? (property.type === 'array' ? key.replace(/s$/, '') : key).toUpperCase()

/** The arguments that have to be said, as in an example. */
export const sampleArguments = (fields: readonly Field[]): readonly string[] =>
  fields
    .filter(({ property, isRequired }) => property.positional === true && isRequired)
    .map((field) => field.property.sample ?? label(field))

/**
 * Flags and arguments of a schema. `prefix`: flags of another plugin's target, offered on `job` sub-commands. What is there already stays, but what
 * all commands have: by its name a command for one runtime means something of its own. Answers the fields that the command line now says.
 */
export function addFields(command: CliCommand, fields: readonly Field[], prefix = ''): readonly Field[] {
  return fields.filter((field) => {
    const { property } = field
    const same = command.options.find(
      (option) =>
        !command.isSpelling(option) &&
        (option.long === `--${field.flag}` || (option.short !== undefined && option.short === `-${property.short}`)),
    )
    if (property.positional === true) {
      if (prefix !== '') return false
      command.addArgument(
        new Argument(
          `${field.isRequired ? '<' : '['}${label(field)}${property.type === 'array' ? '...' : ''}${field.isRequired ? '>' : ']'}`,
          property.description,
        ),
      )
    } else if (same === undefined || (prefix === '' && command.isGlobal(same))) {
      command.addOption(toOption(field, prefix, command.app.world))
    } else if (command.isGlobal(same)) return false
    return true
  })
}

function coerce(property: Property, value: unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => coerce(property.items ?? {}, item))
  const isNumber = property.type === 'integer' || property.type === 'number'
  // A number too large for JavaScript stays text: the schema refuses it as it was written.
  const isSafe = typeof value === 'string' && /^-?\d+(\.\d+)?$/.test(value) && Math.abs(Number(value)) <= Number.MAX_SAFE_INTEGER
  return isNumber && isSafe ? Number(value) : value
}

const variable = (property: Property, env: World['env']): string | undefined =>
  property.variable === undefined ? undefined : env[property.variable] || undefined

/** commander takes `--no-pivot` for the opposite of `--pivot`, which is true until then. */
const isNegative = (key: string): boolean => /^no[A-Z]/.test(key)
const negated = (key: string): string => key.charAt(2).toLowerCase() + key.slice(3)

/** What was given on the command line, or by the environment, by the schema's names; unchecked. */
export function collect(
  fields: readonly Field[],
  args: readonly string[],
  flags: Readonly<Record<string, unknown>>,
  env: World['env'] = {},
): ParsedOptions {
  const rest = [...args]
  const entries = fields.map(({ key, property }): [string, unknown] => {
    if (property.positional !== true && isNegative(key)) return [key, flags[negated(key)] === false ? true : undefined]
    if (property.positional !== true) return [key, coerce(property, flags[key] ?? variable(property, env))]
    return [key, coerce(property, property.type === 'array' ? rest.splice(0) : rest.shift())]
  })
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined))
}

/** The daemon checks again, and alone where there is but a description; this is for a mistake to be seen before anything is asked. */
export function check(options: Options | undefined, given: ParsedOptions): ParsedOptions {
  const result = options !== undefined && 'safeParse' in options ? (options as OptionSchema).safeParse(given) : undefined
  if (result === undefined || result.success) return given
  const issue = result.error.issues[0]!
  const [key, ...inner] = issue.path
  const value = inner.reduce<unknown>((at, step) => (at as Record<PropertyKey, unknown> | undefined)?.[step], given[String(key)])
  const shown = value === '' ? '' : typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? `: ${value}` : ''
  const name = key === undefined || /^invalid |^no /.test(issue.message) ? '' : `${kebab(String(key))}: `
  throw new CliError(`${name}${issue.message}${shown}`)
}

/** The sub-commands of a verb: one for each runtime that has it, and `job`. Flags and arguments come from the manifests. */
import type { TargetRequest } from '../daemon/api/engine.js'
import { CedanaError } from '../plugins/contract/errors.js'
import type { ParsedOptions } from '../plugins/contract/options.js'
import type { Verb } from '../plugins/contract/runtime.js'
import { type DescribedRuntime, unsupported } from '../plugins/description.js'
import type { CliCommand, Handler } from './command.js'
import { jobArgument, jobOf, type LatestFlag } from './latest.js'
import { addFields, check, collect, fieldsOf, type Options, takesNumber } from './flags.js'

/** Reads what the command line says, by the schema; nothing is left unchecked. */
type Reader = (args: readonly string[], flags: object) => ParsedOptions

async function reader(command: CliCommand, schema: Options | undefined): Promise<Reader> {
  const fields = await fieldsOf(schema)
  addFields(command, fields)
  return (args, flags) => check(schema, collect(fields, args, flags as Record<string, unknown>, command.app.world.env))
}

export interface TypeCommand {
  readonly command: CliCommand
  readonly manifest: DescribedRuntime
  /** By verb of the schema; an absent schema reads as nothing. */
  readonly read: Readonly<Record<string, Reader>>
  /** An argument for examples: a PID, or the name of a container. */
  readonly sample: string
}

async function fill(command: CliCommand, manifest: DescribedRuntime, schemas: readonly string[]): Promise<TypeCommand> {
  const read: Record<string, Reader> = {}
  for (const schema of schemas) read[schema] = await reader(command, manifest.options[schema])
  const first = (await fieldsOf(manifest.options.resolve)).find(({ property }) => property.positional === true)
  return { command, manifest, read, sample: first !== undefined && takesNumber(first.property) ? '4711' : 'web' }
}

/** One sub-command for each runtime with `verb`; `schemas`: whose options it takes, in the order of their arguments. */
export async function typeCommands(
  parent: CliCommand,
  verb: Verb,
  schemas: readonly string[],
  summary: (name: string) => string,
): Promise<TypeCommand[]> {
  const all = await parent.app.plugins()
  for (const one of all.filter(({ verbs, instead }) => verbs[verb] === undefined && instead?.[verb] !== undefined))
    refuse(parent, one, verb)
  const manifests = all.filter(({ verbs }) => verbs[verb] !== undefined)
  return Promise.all(manifests.map((manifest) => fill(parent.add(manifest.name, summary(manifest.name)), manifest, schemas)))
}

/** Whoever looks for it is told what to do instead, whatever they said besides. */
function refuse(parent: CliCommand, runtime: DescribedRuntime, verb: Verb): void {
  const command = parent.add(runtime.name, unsupported(runtime, verb).message, { isHidden: true })
  command
    .argument('[ARG...]')
    .allowUnknownOption()
    .does(() => Promise.reject(unsupported(runtime, verb)))
}

/** Who gives an option that other verbs of the runtime have is told which. */
export async function hintAtOthers({ command, manifest }: TypeCommand, verbs: readonly Verb[]): Promise<void> {
  const having = async (verb: Verb): Promise<readonly string[]> =>
    (await fieldsOf(manifest.options[verb]))
      .filter(({ property }) => property.positional !== true)
      .map(({ flag }) => `--${flag} cedana ${verb} ${manifest.name}`)
  const all = (await Promise.all(verbs.map(having))).flat()
  command.unknownOptionHint = (flag) => {
    const others = all.filter((one) => one.startsWith(`${flag} `)).map((one) => one.slice(flag.length + 1))
    return others.length === 0 ? undefined : `it is one of ${others.join(' and ')}`
  }
}

/** This command itself, for a built-in runtime. */
export async function typeCommand(command: CliCommand, name: string, schemas: readonly string[]): Promise<TypeCommand> {
  const [manifest] = await command.app.world.builtins([name])
  if (manifest === undefined) throw new CedanaError('NO_SUCH_PLUGIN', `no runtime plugin named ${name}`)
  return fill(command, manifest, schemas)
}

/** Name of the option that is a program to be looked up in PATH. */
export const executableField = async (schema: Options | undefined): Promise<string | undefined> =>
  (await fieldsOf(schema)).find(({ property }) => property.executable === true)?.key

/** `job`: takes the flags of every runtime too, as overrides. */
export async function jobCommand(
  parent: CliCommand,
  verb: Verb,
  schema: string,
  summary: string,
): Promise<{ command: CliCommand; read: Reader }> {
  const command = jobArgument(parent.add('job', summary))
  const manifests = (await parent.app.plugins()).filter(({ verbs }) => verbs[verb] !== undefined)
  const fields = await Promise.all(manifests.map(async ({ name, options }) => ({ name, fields: await fieldsOf(options[schema]) })))
  const flags = fields.flatMap((one) => addFields(command, one.fields, `(${one.name}) `))
  return { command, read: (_args, given) => collect(flags, [], given as Record<string, unknown>) }
}

/** Freeze and unfreeze differ in a word. */
export async function targetCommands(
  parent: CliCommand,
  verb: 'freeze' | 'unfreeze',
  handler: (request: TargetRequest) => Handler<object>,
): Promise<void> {
  const { command } = await jobCommand(parent, verb, 'none', `${verb} a job`)
  command
    .example(`cedana ${verb} job train`)
    .does<LatestFlag>(async (session, flags, args) =>
      handler({ jid: await jobOf(session, args[0], flags), type: '', target: {} })(session, flags, args),
    )
  for (const { command: sub, manifest, read, sample } of await typeCommands(
    parent,
    verb,
    ['resolve'],
    (name) => `${verb} a target of type ${name}`,
  )) {
    sub.example(`cedana ${verb} ${manifest.name} ${sample}`)
    sub.does((session, flags, args) => handler({ jid: '', type: manifest.name, target: read.resolve!(args, flags) })(session, flags, args))
  }
}

/** A command of the tree: commander's, with our way to run, to pass flags on, to show examples and to complain. */
import type { EventEmitter } from 'node:events'
import { Command, Help, Option, type ErrorOptions } from 'commander'
import { usageError } from './exit-codes.js'
import { wrap } from './render/wrap.js'
import type { DescribedRuntime } from '../plugins/description.js'
import { Session, type World } from './session.js'

/** What the tree shares: the world it acts on, and how the command that ran ended. */
export interface App {
  readonly world: World
  exitCode: number
  session: Session | undefined
  plugins(): Promise<readonly DescribedRuntime[]>
  /** The tree as far as this command line needs it; without one: all of it. */
  tree(argv?: readonly string[]): Promise<CliCommand>
}

/** Undefined: success. */
export type Handler<O> = (session: Session, options: O, args: readonly string[]) => Promise<number | void>

const GLOBAL = 'Global options:'

export class CliCommand extends Command {
  readonly examples: string[] = []
  /** Paragraphs after the flags. */
  readonly notes: string[] = []
  /** Said when an option is unknown and is not like one there is. */
  unknownOptionHint: (flag: string) => string | undefined = () => undefined
  private readonly inherited = new Set<Option>()
  /** Other spellings of options, by the option that they are read as. */
  private readonly spellings = new Map<Option, Option>()
  /** Options of all commands whose names mean something else here. */
  private readonly taken = new Set<string>()

  constructor(
    name: string | undefined,
    readonly app: App,
  ) {
    super(name)
    this.enablePositionalOptions()
    this.helpCommand(false)
    this.helpOption('-h, --help', 'show this help')
    this.configureHelp({
      subcommandTerm: (command) => [command.name(), ...command.aliases()].join(', '),
      // The flags of every command come after its own.
      groupItems(all, visible, groupOf) {
        const groups = new Help().groupItems(all, visible, groupOf)
        const globals = groups.get(GLOBAL)
        if (globals !== undefined && groups.delete(GLOBAL)) groups.set(GLOBAL, globals)
        return groups
      },
    })
    this.addHelpText('after', () => this.notes.map((text) => `\n${wrap(text, 80).join('\n')}`).join('\n'))
    this.addHelpText('after', () => (this.examples.length > 0 ? `\nExamples:\n${this.examples.map((line) => `  ${line}`).join('\n')}` : ''))
    this.exitOverride()
    this.configureOutput({
      writeOut: (text) => void app.world.stdout.write(text),
      // Every mistake is thrown and printed once, by main: never the whole usage.
      writeErr: () => {},
    })
  }

  override createCommand(name?: string): CliCommand {
    return new CliCommand(name, this.app)
  }

  /** A sub-command. The flags of this command are flags of it too, before or after its arguments. */
  add(name: string, summary: string, { isHidden = false }: { readonly isHidden?: boolean | undefined } = {}): CliCommand {
    const child = this.command(name, { hidden: isHidden }).description(summary) as unknown as CliCommand
    for (const option of this.options) child.inherit(option)
    return child
  }

  private inherit(option: Option): void {
    const copy: Option = Object.assign(new Option(option.flags, option.description), option)
    const meant = (this.parent as CliCommand).spellings.get(option)
    if (meant !== undefined) this.spellings.set(copy, meant)
    copy.helpGroup(this.parent?.parent === null ? GLOBAL : (option.helpGroupHeading ?? 'Options:'))
    this.addOption(copy)
    this.inherited.add(copy)
  }

  isInherited(option: Option): boolean {
    return this.inherited.has(option)
  }

  /** One that all commands have. */
  isGlobal(option: Option): boolean {
    return this.inherited.has(option) && option.helpGroupHeading === GLOBAL
  }

  /** A command's own flag takes the place of an inherited one of the same name, or letter. */
  override addOption(option: Option): this {
    const isSame = (one: string | undefined, other: string | undefined): boolean => one !== undefined && one === other
    const isTaken = (one: Option): boolean => isSame(one.long, option.long) || isSame(one.short, option.short)
    const shadowed = this.options.find((one) => this.inherited.has(one) && isTaken(one))
    if (shadowed !== undefined) {
      const options = this.options as Option[]
      if (this.isGlobal(shadowed)) this.taken.add(shadowed.attributeName())
      options.splice(options.indexOf(shadowed), 1)
      ;(this as unknown as EventEmitter).removeAllListeners(`option:${shadowed.name()}`)
    }
    return super.addOption(option)
  }

  /** The same option as others spell it: read, completed and documented, but not shown in help. What means something of its own here stays so. */
  spell(long: string, spellings: readonly string[]): this {
    const option = this.options.find((one) => one.long === long)
    if (option === undefined) return this
    const value = option.flags.replace(/^[^<]*/, '')
    for (const spelling of spellings.filter((one) => !this.options.some((other) => other.long === one || other.short === one))) {
      const other = new Option(`${spelling} ${value}`, option.description).hideHelp()
      const { parseArg, argChoices, negate } = option
      this.addOption(Object.assign(other, { parseArg, argChoices, negate, attributeName: () => option.attributeName() }))
      this.spellings.set(other, option)
    }
    return this
  }

  isSpelling(option: Option): boolean {
    return this.spellings.has(option)
  }

  spellingsOf(option: Option): readonly string[] {
    return [...this.spellings].flatMap(([other, meant]) => (meant === option ? [other.long ?? other.short ?? ''] : []))
  }

  example(...lines: readonly string[]): this {
    this.examples.push(...lines)
    return this
  }

  note(text: string): this {
    this.notes.push(text)
    return this
  }

  /** What the command does. The options of its parents, given before its name, are among its own. */
  does<O = Record<string, never>>(handler: Handler<O>): this {
    return this.action(async () => {
      const options = this.mergedOptions()
      const session = new Session(this.app.world, this.globalOptions(options))
      this.app.session = session
      await session.writeConfig()
      this.app.exitCode = (await handler(session, options as O, this.args)) ?? 0
    })
  }

  /** As the session is to see them: what is taken here is what was said before the command's name. */
  private globalOptions(merged: Record<string, unknown>): Record<string, unknown> {
    const above = this.parent === null || this.taken.size === 0 ? {} : (this.parent as CliCommand).mergedOptions()
    const before = [...this.taken].map((name) => [name, above[name]] as const)
    return { ...merged, ...Object.fromEntries(before) }
  }

  private mergedOptions(): Record<string, unknown> {
    const all = this.parent === null ? {} : (this.parent as CliCommand).mergedOptions()
    const above = Object.fromEntries(Object.entries(all).filter(([name]) => !this.taken.has(name)))
    // A default here must not undo what was said above.
    const said = Object.entries(this.opts()).filter(([name]) => !(name in above) || this.getOptionValueSource(name) !== 'default')
    return { ...above, ...Object.fromEntries(said) }
  }

  /** A switch with three states: `--x`, `--no-x`, not said. */
  tristate(name: string, description: string, short?: string): this {
    return this.option(`${short === undefined ? '' : `${short}, `}--${name}`, description).addOption(
      new Option(`--no-${name}`, `turns --${name} off, whatever is configured or detected`).hideHelp(),
    )
  }

  choice(flags: string, description: string, choices: readonly string[]): this {
    return this.addOption(new Option(flags, description).choices(choices))
  }

  /** A command that only groups others was called by itself. */
  override help(context?: { error: boolean } | ((text: string) => string)): never {
    if (typeof context === 'object' && context.error) {
      const names = this.visibleCommands().map((command) => command.name())
      throw usageError(`${this.path()} needs one of: ${names.join(', ')} (see ${this.path()} --help)`)
    }
    return super.help(context as { error: boolean } | undefined)
  }

  override error(message: string, options?: ErrorOptions): never {
    const unknown = options?.code === 'commander.unknownOption' ? /^error: (unknown option '([^'=]*).*)$/.exec(message) : null
    const hint = unknown && this.unknownOptionHint(unknown[2]!)
    if (unknown && hint !== null && hint !== undefined) throw usageError(unknown[1]!, hint)
    if (options?.code !== 'commander.unknownCommand') return super.error(message, options)
    if (this.parent === null) return super.error(message, options)
    const names = this.visibleCommands().map((command) => command.name())
    const [what, suggestion] = message.split('\n')
    return super.error(
      `${what} of ${this.path()}${suggestion === undefined ? `, which has: ${names.join(', ')}` : `\n${suggestion}`}`,
      options,
    )
  }

  visibleCommands(): CliCommand[] {
    return this.createHelp().visibleCommands(this) as CliCommand[]
  }

  /** `cedana dump process`. */
  path(): string {
    return this.parent === null ? this.name() : `${(this.parent as CliCommand).path()} ${this.name()}`
  }

  /** Switches also take `=true` and `=false`, as scripts write them. */
  override parseOptions(argv: string[]): ReturnType<Command['parseOptions']> {
    const end = argv.indexOf('--')
    const rewritten = argv.flatMap((arg, index) => {
      const [, name, value] = (end === -1 || index < end ? /^--([a-z][a-z0-9-]*)=(true|false)$/.exec(arg) : null) ?? []
      const option = name === undefined ? undefined : this.options.find((one) => one.long === `--${name}`)
      if (option === undefined || option.required || option.optional) return [arg]
      if (value === 'true') return [`--${name}`]
      return this.options.some((one) => one.long === `--no-${name}`) ? [`--no-${name}`] : []
    })
    return super.parseOptions(rewritten)
  }
}

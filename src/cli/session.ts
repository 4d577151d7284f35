/** One command being carried out: its configuration, where it prints and in which form, and the engine it asks. */
import { statSync } from 'node:fs'
import { resolve } from 'node:path'
import { DEFAULT_ADDRESS } from '../daemon/api/endpoint.js'
import type { Engine, Step } from '../daemon/api/engine.js'
import type { Config, ConfigSources, KeyDescription } from '../daemon/config.js'
import type * as PluginAuthorModule from '../daemon/plugins/author.js'
import type { Offers } from '../daemon/plugins/available.js'
import type { PluginStore } from '../daemon/plugins/store.js'
import { reasonOf } from '../plugins/contract/errors.js'
import type { Caller } from '../plugins/contract/job.js'
import type { DescribedRuntime, RuntimeDescription } from '../plugins/description.js'
import { CliError } from './exit-codes.js'
import type { ColourMode, Style } from './render/style.js'
import { styleFor } from './render/style.js'

type PluginAuthor = typeof PluginAuthorModule

/** What surrounds the command line: the process, the daemon, the plugins. main.ts builds the real one, tests a fake. */
export interface World {
  readonly version: string
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  readonly caller: Caller
  readonly stdin: NodeJS.ReadStream
  readonly stdout: NodeJS.WriteStream
  readonly stderr: NodeJS.WriteStream
  /** Aborted by the first SIGINT, SIGTERM or SIGHUP. */
  readonly signal: AbortSignal
  /** From now on SIGINT and SIGTERM are not for this program but for the process it started. */
  holdSignals(): void
  /** Whether this word of the command line, or of the environment, was said so, and is not what became of bytes that are not UTF-8. */
  isExact(word: string): boolean
  loadConfig(sources: ConfigSources): Promise<Config>
  writeConfig(kind: 'init' | 'merge', sources: ConfigSources): Promise<string>
  describeConfig(): Promise<readonly KeyDescription[]>
  /** The daemon, over gRPC. */
  connect(config: Config): Promise<Engine>
  /** The same verbs in this process (`--no-server`); `withJobs`: with the jobs of the database. */
  openLocal(config: Config, options: { readonly withJobs: boolean }): Promise<Engine>
  /** `reread`: the configuration as it is by then. */
  startDaemon(config: Config, reread: () => Promise<Config>): Promise<void>
  pluginAuthor(): Promise<PluginAuthor>
  openPluginStore(config: Config): Promise<PluginStore>
  /** What the npm registry has of these packages. */
  askRegistry(specs: readonly string[]): Promise<Offers>
  /** Runs the code of the plugin in `directory`; writes what it says of itself, or compares it with what is written. */
  describePlugin(config: Config, directory: string, options: { readonly check: boolean }): Promise<RuntimeDescription>
  /** Plugins that are part of the program: all, or those of these names. */
  builtins(names?: readonly string[]): Promise<readonly DescribedRuntime[]>
  /** Those of the plugin directory and the search path. */
  externals(config: Config): Promise<readonly RuntimeDescription[]>
}

export const OUTPUT_FORMATS = ['table', 'wide', 'json', 'yaml', 'name'] as const
type OutputFormat = (typeof OUTPUT_FORMATS)[number]

interface GlobalOptions {
  readonly config?: string
  readonly configDir?: string
  readonly initConfig?: boolean
  readonly mergeConfig?: boolean
  readonly protocol?: string
  readonly address?: string
  readonly profiling?: boolean
  readonly profilingPath?: string
  readonly logLevel?: string
  /** How often it was said. */
  readonly verbose?: number
  readonly color?: ColourMode
  readonly db?: string
}
export interface OutputOptions {
  readonly output?: OutputFormat
  /** Of `checkpoint export` another: that of the archive. */
  readonly format?: string
  readonly quiet?: boolean
  readonly headers?: boolean
  readonly trunc?: boolean
  /** `column=value`, of lists. */
  readonly filter?: readonly string[]
  readonly sort?: string
}

/** Which engine: the daemon's, or one in this process. */
export interface Where {
  readonly local?: boolean
  /** The request names a job: the local engine reads the database. */
  readonly withJobs?: boolean
}

function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory()
  } catch {
    return false
  }
}

export class Session {
  readonly style: Style
  readonly errorStyle: Style
  /** Undefined: not said, the command has its own default. */
  readonly format: OutputFormat | undefined
  private config: Promise<Config> | undefined

  constructor(
    readonly world: World,
    readonly options: GlobalOptions & OutputOptions,
  ) {
    const mode = options.color ?? 'auto'
    this.style = styleFor(world.stdout, mode, world.env)
    this.errorStyle = styleFor(world.stderr, mode, world.env)
    this.format = options.output ?? OUTPUT_FORMATS.find((one) => one === options.format)
  }

  /** For programs: one document on standard output, errors as JSON. */
  get isStructured(): boolean {
    return this.format === 'json' || this.format === 'yaml'
  }

  get signal(): AbortSignal {
    return this.world.signal
  }

  print(text: string): void {
    this.world.stdout.write(`${text}\n`)
  }

  /** For people: never mixed with results. */
  note(text: string): void {
    this.world.stderr.write(`${text}\n`)
  }

  /** What goes on, for who asked to see it. */
  readonly debug = (text: string): void => {
    if (this.logLevel === 'debug' || this.logLevel === 'trace') this.note(this.errorStyle('grey', text))
  }

  loadConfig(): Promise<Config> {
    this.config ??= this.readConfig()
    return this.config
  }

  /** `--init-config`, `--merge-config`: of every command, whether it reads the configuration or not. */
  async writeConfig(): Promise<void> {
    const { initConfig, mergeConfig } = this.options
    if (initConfig === true || mergeConfig === true)
      await this.world.writeConfig(mergeConfig === true ? 'merge' : 'init', this.configSources())
  }

  /** What the command line says of it. */
  private get logLevel(): string | undefined {
    const { logLevel, verbose = 0 } = this.options
    return logLevel ?? (verbose === 0 ? undefined : verbose === 1 ? 'debug' : 'trace')
  }

  private configSources(): ConfigSources {
    const { config, configDir, address, protocol, profiling, profilingPath, db } = this.options
    const level = this.logLevel === undefined ? {} : { CEDANA_LOG_LEVEL: this.logLevel, CEDANA_LOG_LEVEL_NO_SERVER: this.logLevel }
    const env = { ...this.world.env, ...level }
    return { configJson: config, configDir, address, protocol, profiling, profilingPath, db, env, uid: this.world.caller.uid }
  }

  async readConfig(): Promise<Config> {
    const { configDir = '' } = this.options
    // Without a file in it there are defaults; without the directory it is a slip of the pen.
    if (configDir !== '' && !isDirectory(configDir))
      throw new CliError(`--config-dir: ${configDir} is not a directory`, { hint: '--init-config makes it, with a config.json' })
    return this.world.loadConfig(this.configSources())
  }

  /** Asks the engine and hangs up, whatever happens. */
  async ask<T>(question: (engine: Engine) => Promise<T>, where: Where = {}): Promise<T> {
    const config = await this.loadConfig()
    const isLocal = where.local === true
    if (!isLocal) this.debug(`asking the daemon at ${config.address || DEFAULT_ADDRESS[config.protocol]}`)
    const engine = isLocal ? await this.world.openLocal(config, { withJobs: where.withJobs ?? false }) : await this.world.connect(config)
    try {
      return await question(engine)
    } finally {
      engine.close()
    }
  }

  /** The profiling tables, when the client's configuration wants them, and the file. */
  async printProfile(operation: string, steps: readonly Step[]): Promise<void> {
    const { profiling } = await this.loadConfig()
    if (!profiling.enabled || steps.length === 0) return
    const { profileJson, profileText } = await import('./render/profile.js')
    if (!this.isStructured && this.options.quiet !== true) {
      const { detailed, precision } = profiling
      this.world.stdout.write(profileText({ operation, steps }, { detailed, precision, style: this.style }))
    }
    // What was asked for is done by now, and its result still to be told.
    if (profiling.path !== '')
      await this.writeFile(profiling.path, profileJson({ operation, steps })).catch((thrown: unknown) =>
        this.note(`Warning: ${(thrown as Error).message}`),
      )
  }

  /** A file that was asked for, readable by everybody. Throws a CliError that names it. */
  async writeFile(path: string, text: string): Promise<void> {
    const { writeFile } = await import('node:fs/promises')
    await writeFile(resolve(this.world.cwd, path), text, { mode: 0o644 }).catch((thrown: unknown) => {
      throw new CliError(`cannot write ${path}: ${reasonOf(thrown)}`)
    })
  }

  /** One document, in the form asked for. */
  async printDocument(value: unknown, format: OutputFormat): Promise<void> {
    const { toJson, toYaml } = await import('./render/structured.js')
    this.world.stdout.write(format === 'json' ? toJson(value) : await toYaml(value))
  }
}

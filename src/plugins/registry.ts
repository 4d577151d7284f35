/** Finds plugins by name: those that are part of the program, and external ones, which come and go. Loads an implementation when it is first needed. */
import { CONTRACT_VERSION } from './contract/version.js'
import { CedanaError } from './contract/errors.js'
import type { OptionSchemas, ParsedOptions } from './contract/options.js'
import type { Runtime, RuntimeManifest, RuntimeVerbs, Verb } from './contract/runtime.js'
import type { RuntimeDescription } from './description.js'
import { guarded } from './guard.js'

export type AnyRuntime = Runtime<OptionSchemas, RuntimeManifest['verbs']>
export interface LoadedRuntime {
  readonly manifest: RuntimeManifest
  readonly verbs: AnyRuntime
}

/** `installed` in the plugin directory; `local`: on the search path; `available`: to be installed. */
export type Origin = 'built-in' | 'installed' | 'local' | 'available'

/** Where a plugin comes from. */
export interface PluginPlace {
  readonly origin: Origin
  readonly version: string
  /** Empty: of the program itself. */
  readonly directory: string
  readonly sizeBytes: number
}

/** A plugin that is a package of its own. */
export interface ExternalRuntime extends PluginPlace {
  readonly description: Omit<RuntimeDescription, 'options'>
  /** Runs its code, the first time. */
  load(): Promise<LoadedRuntime>
}
/** One that is there and cannot be used. */
export interface LeftOut extends PluginPlace {
  readonly name: string
  readonly reason: string
}

interface Entry extends PluginPlace {
  readonly description: Omit<RuntimeDescription, 'options'>
  readonly load: () => Promise<LoadedRuntime>
}

export interface RegistryOptions {
  /** Of a program whose plugins these are. */
  readonly version: string
  /** How long a verb of an external plugin may take. */
  readonly verbTimeoutMs: number
}

export class Registry {
  readonly #builtins = new Map<string, Entry>()
  #externals: ReadonlyMap<string, Entry> = new Map()
  #leftOut: readonly LeftOut[] = []

  constructor(
    manifests: readonly RuntimeManifest[],
    private readonly settings: RegistryOptions = { version: CONTRACT_VERSION, verbTimeoutMs: 0 },
  ) {
    for (const manifest of manifests) {
      if (this.#builtins.has(manifest.name)) throw new CedanaError('BUG', `two runtime plugins named ${manifest.name}`)
      let loaded: Promise<LoadedRuntime> | undefined
      const load = (): Promise<LoadedRuntime> => (loaded ??= manifest.load().then((verbs) => ({ manifest, verbs })))
      const place = { origin: 'built-in', version: settings.version, directory: '', sizeBytes: 0 } as const
      this.#builtins.set(manifest.name, { ...place, description: manifest, load })
    }
  }

  /** The external plugins from now on. Operations that have a verb already finish with it. */
  use(externals: readonly ExternalRuntime[], leftOut: readonly LeftOut[]): void {
    const clashing = externals.find(({ description: { name } }) => this.#builtins.has(name))
    if (clashing) throw new CedanaError('BUG', `an external plugin named ${clashing.description.name} got past the name check`)
    this.#externals = new Map(externals.map((one) => [one.description.name, { ...one, load: () => one.load() }]))
    this.#leftOut = leftOut
  }

  isBuiltIn(name: string): boolean {
    return this.#builtins.has(name)
  }

  /** Those that can be used. */
  get runtimes(): readonly (PluginPlace & { readonly description: Omit<RuntimeDescription, 'options'> })[] {
    return [...this.#builtins.values(), ...this.#externals.values()]
  }

  get leftOut(): readonly LeftOut[] {
    return this.#leftOut
  }

  #entry(name: string): Entry {
    const entry = this.#builtins.get(name) ?? this.#externals.get(name)
    if (entry) return entry
    const broken = this.#leftOut.find((one) => one.name === name)
    if (broken)
      throw new CedanaError('NO_SUCH_PLUGIN', `plugin ${name} cannot be used: ${broken.reason}`, { hint: 'see: cedana plugin list' })
    throw new CedanaError('NO_SUCH_PLUGIN', `no runtime plugin named ${name}`, {
      hint: `installed: ${this.runtimes.map(({ description }) => description.name).join(', ')}; more by: cedana plugin install`,
    })
  }

  supports(name: string, verb: Verb): boolean {
    return (this.#builtins.get(name) ?? this.#externals.get(name))?.description.verbs[verb] !== undefined
  }

  /** One verb of one runtime, ready to call. Throws NO_SUCH_PLUGIN or VERB_UNSUPPORTED. */
  async verb<V extends Verb>(name: string, verb: V): Promise<RuntimeVerbs<OptionSchemas>[V]> {
    const { description, load, origin } = this.#entry(name)
    if (!description.verbs[verb]) throw new CedanaError('VERB_UNSUPPORTED', `${verb} is not supported for ${name}`)
    const method = (await load()).verbs[verb]
    if (!method) throw new CedanaError('BUG', `runtime plugin ${name} claims ${verb} but does not have it`)
    return origin === 'built-in' ? method : guarded(name, verb, method, this.settings.verbTimeoutMs)
  }

  /** Options of a verb, checked. Throws BAD_OPTIONS naming the option. */
  async options(name: string, verb: string, given: ParsedOptions): Promise<ParsedOptions> {
    const schema = (await this.#entry(name).load()).manifest.options[verb]
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
}

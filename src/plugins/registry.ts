/** Finds plugins by name: those that are part of the program, and external ones, which come and go. Loads an implementation when it is first needed. */
import { CONTRACT_VERSION } from './contract/version.js'
import { CedanaError } from './contract/errors.js'
import type { OptionSchemas, ParsedOptions } from './contract/options.js'
import type { Runtime, RuntimeManifest, RuntimeVerbs, Verb } from './contract/runtime.js'
import { type RuntimeDescription, unsupported } from './description.js'
import { parseOptions } from './parse-options.js'

export type AnyRuntime = Runtime<OptionSchemas, RuntimeManifest['verbs']>
export interface LoadedRuntime {
  readonly verbs: AnyRuntime
  /** Options of a verb, checked. Throws BAD_OPTIONS naming the option. */
  parse(verb: string, given: ParsedOptions): ParsedOptions | Promise<ParsedOptions>
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
  readonly loaded: LoadedRuntime
  /** What it was that has gone wrong with it last; empty when nothing has. */
  readonly problem: string
}
/** One that is there and cannot be used. */
export interface LeftOut extends PluginPlace {
  readonly name: string
  readonly reason: string
}

interface Entry extends PluginPlace {
  readonly description: Omit<RuntimeDescription, 'options'>
  readonly problem: string
  readonly load: () => Promise<LoadedRuntime>
}

const entryOf = (external: ExternalRuntime): Entry => ({
  ...external,
  get problem() {
    return external.problem
  },
  load: async () => external.loaded,
})

export class Registry {
  readonly #builtins = new Map<string, Entry>()
  #externals: ReadonlyMap<string, Entry> = new Map()
  #leftOut: readonly LeftOut[] = []

  /** `version`: of the program whose plugins these are. */
  constructor(manifests: readonly RuntimeManifest[], version: string = CONTRACT_VERSION) {
    for (const manifest of manifests) {
      if (this.#builtins.has(manifest.name)) throw new CedanaError('BUG', `two runtime plugins named ${manifest.name}`)
      let loaded: Promise<LoadedRuntime> | undefined
      const load = (): Promise<LoadedRuntime> =>
        (loaded ??= manifest.load().then((verbs) => ({ verbs, parse: (verb, given) => parseOptions(manifest, verb, given) })))
      const place = { origin: 'built-in', version, directory: '', sizeBytes: 0 } as const
      this.#builtins.set(manifest.name, { ...place, description: manifest, problem: '', load })
    }
  }

  /** The external plugins from now on. Operations that have a verb already finish with it. */
  use(externals: readonly ExternalRuntime[], leftOut: readonly LeftOut[]): void {
    const clashing = externals.find(({ description: { name } }) => this.#builtins.has(name))
    if (clashing) throw new CedanaError('BUG', `an external plugin named ${clashing.description.name} got past the name check`)
    this.#externals = new Map(externals.map((one) => [one.description.name, entryOf(one)]))
    this.#leftOut = leftOut
  }

  isBuiltIn(name: string): boolean {
    return this.#builtins.has(name)
  }

  /** Those that can be used. */
  get runtimes(): readonly Omit<Entry, 'load'>[] {
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
    const { description, load } = this.#entry(name)
    if (!description.verbs[verb]) throw unsupported(description, verb)
    const method = (await load()).verbs[verb]
    if (!method) throw new CedanaError('BUG', `runtime plugin ${name} claims ${verb} but does not have it`)
    return method
  }

  /** Options of a verb, checked. Throws BAD_OPTIONS naming the option. */
  async options(name: string, verb: string, given: ParsedOptions): Promise<ParsedOptions> {
    return (await this.#entry(name).load()).parse(verb, given)
  }
}

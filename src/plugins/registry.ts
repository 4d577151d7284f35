/** Finds plugins by name; refuses duplicates; loads an implementation when it is first needed. */
import { CedanaError } from './contract/errors.js'
import type { OptionSchemas, ParsedOptions } from './contract/options.js'
import type { Runtime, RuntimeManifest, RuntimeVerbs, Verb } from './contract/runtime.js'

type AnyRuntime = Runtime<OptionSchemas, RuntimeManifest['verbs']>

export class Registry {
  readonly #manifests = new Map<string, RuntimeManifest>()
  readonly #loaded = new Map<string, Promise<AnyRuntime>>()

  constructor(manifests: readonly RuntimeManifest[]) {
    for (const manifest of manifests) {
      if (this.#manifests.has(manifest.name)) throw new CedanaError('BUG', `two runtime plugins named ${manifest.name}`)
      this.#manifests.set(manifest.name, manifest)
    }
  }

  get runtimes(): readonly RuntimeManifest[] {
    return [...this.#manifests.values()]
  }

  manifest(name: string): RuntimeManifest {
    const manifest = this.#manifests.get(name)
    if (manifest) return manifest
    throw new CedanaError('NO_SUCH_PLUGIN', `no runtime plugin named ${name}`, {
      hint: `installed: ${[...this.#manifests.keys()].join(', ')}`,
    })
  }

  supports(name: string, verb: Verb): boolean {
    return this.#manifests.get(name)?.verbs[verb] !== undefined
  }

  /** One verb of one runtime, ready to call. Throws NO_SUCH_PLUGIN or VERB_UNSUPPORTED. */
  async verb<V extends Verb>(name: string, verb: V): Promise<RuntimeVerbs<OptionSchemas>[V]> {
    const manifest = this.manifest(name)
    if (!manifest.verbs[verb]) throw new CedanaError('VERB_UNSUPPORTED', `${verb} is not supported for ${name}`)
    let loading = this.#loaded.get(name)
    if (!loading) this.#loaded.set(name, (loading = manifest.load()))
    const method = (await loading)[verb]
    if (!method) throw new CedanaError('BUG', `runtime plugin ${name} claims ${verb} but does not have it`)
    return method
  }

  /** Options of a verb, checked. Throws BAD_OPTIONS naming the option. */
  options(name: string, verb: string, given: ParsedOptions): ParsedOptions {
    const schema = this.manifest(name).options[verb]
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

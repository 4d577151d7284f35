/** The external plugins of a registry: finds them, and loads them. One that cannot be used is left out, with the reason; the others are not touched. */
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Log } from '../../plugins/contract/host.js'
import {
  installedDigest,
  type PluginCandidate,
  pluginCandidates,
  type PluginPackage,
  type PluginPaths,
  readPlugin,
} from '../../plugins/packages.js'
import type { ExternalRuntime, LeftOut, LoadedRuntime, Registry } from '../../plugins/registry.js'
import { loadPlugin } from './load.js'
import { refuseOthersAbove } from './owned.js'
import { addDoor, walkPackage } from './stage.js'
import { probe } from './probe.js'

export interface LoaderOptions {
  readonly registry: Registry
  readonly paths: PluginPaths
  readonly loadTimeoutMs: number
  readonly log: Log
  /** For copies of what is on the search path; removed with this process. */
  workDirectory(): Promise<string>
}

interface Found extends PluginPackage {
  readonly origin: PluginCandidate['origin']
  readonly sizeBytes: number
  /** By its files. */
  readonly digest: string
}

const reasonOf = (thrown: unknown): string => {
  const { message, hint } = CedanaError.from(thrown)
  return hint === undefined ? message : `${message} (${hint})`
}

export class PluginLoader {
  /** What is loaded, or can be, by content. */
  #known: ReadonlyMap<string, ExternalRuntime> = new Map()
  /** Name of the plugin, by the directory that its code was loaded from. */
  readonly #ran = new Map<string, string>()
  #loading = Promise.resolve()

  constructor(private readonly options: LoaderOptions) {}

  /** Looks for them, and runs no code of theirs. */
  async find(): Promise<void> {
    const { registry, paths } = this.options
    const known = new Map<string, ExternalRuntime>()
    const leftOut: LeftOut[] = []
    const taken = new Map<string, string>()
    for (const candidate of pluginCandidates(paths)) {
      const { origin, directory } = candidate
      let name = candidate.entry
      let version = ''
      try {
        const found = await this.#examine(candidate)
        ;({ version } = found)
        name = found.description.name
        refuseClash(name, registry, taken.get(name))
        taken.set(name, directory)
        const key = `${name} ${origin} ${directory} ${found.digest}`
        known.set(key, this.#known.get(key) ?? this.#external(found))
      } catch (thrown) {
        leftOut.push({ name, origin, version, directory, sizeBytes: 0, reason: reasonOf(thrown) })
      }
    }
    this.#known = known
    registry.use([...known.values()], leftOut)
  }

  /** Looks for them again and loads those that are new or changed. Two at a time are one after the other. */
  loadAll(): Promise<void> {
    this.#loading = this.#loading.then(
      () => this.#loadAll(),
      () => this.#loadAll(),
    )
    return this.#loading
  }

  async #loadAll(): Promise<void> {
    const { registry, log } = this.options
    await this.find()
    const leftOut: LeftOut[] = [...registry.leftOut]
    const loaded = await Promise.all(
      [...this.#known].map(async ([key, external]) => {
        try {
          await external.load()
          return [[key, external] as const]
        } catch (thrown) {
          const { origin, version, directory, sizeBytes } = external
          leftOut.push({ name: external.description.name, origin, version, directory, sizeBytes, reason: reasonOf(thrown) })
          return []
        }
      }),
    )
    this.#known = new Map(loaded.flat())
    registry.use([...this.#known.values()], leftOut)
    for (const { name, directory, reason } of leftOut) log.warn({ plugin: name, directory, reason }, 'plugin left out')
    for (const { description, version } of this.#known.values()) log.info({ plugin: description.name, version }, 'plugin loaded')
  }

  /** The plugin whose code an error comes from. */
  blame(error: Error): string | undefined {
    return [...this.#ran].find(([directory]) => error.stack?.includes(`${directory}/`))?.[1]
  }

  async #examine({ origin, directory }: PluginCandidate): Promise<Found> {
    await refuseOthersAbove(directory)
    const found = readPlugin(directory)
    const contents = await walkPackage(directory, { mustBeOurs: true })
    if (origin === 'installed' && installedDigest(directory) !== contents.digest)
      throw new CedanaError('PLUGIN_FAILED', 'its files have been changed since it was installed', { hint: 'install it again' })
    return { ...found, origin, ...contents }
  }

  #external(found: Found): ExternalRuntime {
    const { description, origin, version, directory, sizeBytes } = found
    let loading: Promise<LoadedRuntime> | undefined
    const load = (): Promise<LoadedRuntime> => {
      // A failure is not remembered: it may have been one of the moment.
      loading ??= this.#load(found).catch((thrown: unknown) => {
        loading = undefined
        throw thrown
      })
      return loading
    }
    return { description, origin, version, directory, sizeBytes, load }
  }

  async #load(found: Found): Promise<LoadedRuntime> {
    const directory = found.origin === 'installed' ? found.directory : await this.#stage(found)
    this.#ran.set(directory, found.description.name)
    const entry = join(directory, found.entry.slice(found.directory.length))
    return loadPlugin({ ...found, entry }, this.options.loadTimeoutMs)
  }

  /** What is on the search path may change at any time: what runs is a copy, which is looked at in a process of its own first. */
  async #stage({ directory, description, digest }: Found): Promise<string> {
    const copies = join(await this.options.workDirectory(), 'plugins')
    const copy = join(copies, `${description.name}-${digest.slice(0, 16)}`)
    await mkdir(copies, { recursive: true, mode: 0o700 })
    await rm(copy, { recursive: true, force: true })
    const copied = await walkPackage(directory, { to: copy, mustBeOurs: true })
    if (copied.digest !== digest) throw new CedanaError('PLUGIN_FAILED', 'it changes while it is loaded')
    await addDoor(copy)
    await probe(copy, this.options.loadTimeoutMs)
    return copy
  }
}

function refuseClash(name: string, registry: Registry, other: string | undefined): void {
  if (registry.isBuiltIn(name))
    throw new CedanaError('BAD_OPTIONS', `it is called ${name}, and that is the name of a plugin of cedana itself`)
  if (other !== undefined) throw new CedanaError('BAD_OPTIONS', `it is called ${name}, like the one in ${other}, which comes first`)
}

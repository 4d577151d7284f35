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
import type { ExternalRuntime, LeftOut, Registry } from '../../plugins/registry.js'
import { IsolatedPlugin } from './isolated.js'
import { refuseOthersAbove } from './owned.js'
import { addDoor, walkPackage } from './stage.js'

export interface LoaderOptions {
  readonly registry: Registry
  readonly paths: PluginPaths
  readonly loadTimeoutMs: number
  /** How long a verb may take. */
  readonly verbTimeoutMs: number
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

interface Known extends ExternalRuntime {
  readonly plugin: IsolatedPlugin
}

const reasonOf = (thrown: unknown): string => {
  const { message, hint } = CedanaError.from(thrown)
  return hint === undefined ? message : `${message} (${hint})`
}

export class PluginLoader {
  /** What is loaded, or can be, by content. */
  #known: ReadonlyMap<string, Known> = new Map()
  #loading = Promise.resolve()

  constructor(private readonly options: LoaderOptions) {}

  /** Looks for them, and runs no code of theirs. */
  async find(): Promise<void> {
    const { registry, paths } = this.options
    const known = new Map<string, Known>()
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
        const former = this.#known.get(key)
        // One that something has gone wrong with begins anew.
        known.set(key, former?.problem === '' ? former : this.#external(found))
      } catch (thrown) {
        leftOut.push({ name, origin, version, directory, sizeBytes: 0, reason: reasonOf(thrown) })
      }
    }
    this.#replace(known, leftOut)
  }

  /** Ends their processes as soon as nothing is under way in them. */
  close(): void {
    this.#replace(new Map(), [])
  }

  #replace(known: ReadonlyMap<string, Known>, leftOut: readonly LeftOut[]): void {
    const kept = new Set(known.values())
    for (const one of this.#known.values()) if (!kept.has(one)) one.plugin.close()
    this.#known = known
    this.options.registry.use([...kept], leftOut)
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
    const usable = await Promise.all(
      [...this.#known].map(async ([key, external]) => {
        try {
          await external.plugin.check()
          return [[key, external] as const]
        } catch (thrown) {
          leftOut.push(leftOutFor(external, reasonOf(thrown)))
          return []
        }
      }),
    )
    this.#replace(new Map(usable.flat()), leftOut)
    for (const { name, directory, reason } of leftOut) log.warn({ plugin: name, directory, reason }, 'plugin left out')
    for (const { description, version } of this.#known.values()) log.info({ plugin: description.name, version }, 'plugin loaded')
  }

  /** Until somebody has plugins looked for again. */
  #leaveOut(external: Known, thrown: CedanaError): void {
    const [key] = [...this.#known].find(([, one]) => one === external) ?? []
    if (key === undefined) return
    const { registry, log } = this.options
    const left = leftOutFor(external, reasonOf(thrown))
    log.warn({ plugin: left.name, directory: left.directory, reason: left.reason }, 'plugin left out')
    this.#replace(new Map([...this.#known].filter(([other]) => other !== key)), [...registry.leftOut, left])
  }

  async #examine({ origin, directory }: PluginCandidate): Promise<Found> {
    await refuseOthersAbove(directory)
    const found = readPlugin(directory)
    const contents = await walkPackage(directory, { mustBeOurs: true })
    if (origin === 'installed' && installedDigest(directory) !== contents.digest)
      throw new CedanaError('PLUGIN_FAILED', 'its files have been changed since it was installed', { hint: 'install it again' })
    return { ...found, origin, ...contents }
  }

  #external(found: Found): Known {
    const { description, origin, version, directory, sizeBytes } = found
    const { log, loadTimeoutMs, verbTimeoutMs } = this.options
    let staged: Promise<string> | undefined
    const plugin = new IsolatedPlugin({
      ...{ description, log, loadTimeoutMs, verbTimeoutMs },
      entry: async () => join(await (staged ??= this.#stage(found)), found.entry.slice(directory.length)),
      onUnusable: (thrown) => this.#leaveOut(external, thrown),
    })
    const external: Known = {
      ...{ description, origin, version, directory, sizeBytes, plugin },
      loaded: plugin.loaded,
      get problem() {
        return plugin.problem
      },
    }
    return external
  }

  /** What is on the search path may change at any time: what runs is a copy. */
  async #stage({ origin, directory, description, digest }: Found): Promise<string> {
    if (origin === 'installed') return directory
    const copies = join(await this.options.workDirectory(), 'plugins')
    const copy = join(copies, `${description.name}-${digest.slice(0, 16)}`)
    await mkdir(copies, { recursive: true, mode: 0o700 })
    await rm(copy, { recursive: true, force: true })
    const copied = await walkPackage(directory, { to: copy, mustBeOurs: true })
    if (copied.digest !== digest) throw new CedanaError('PLUGIN_FAILED', 'it changes while it is loaded')
    await addDoor(copy)
    return copy
  }
}

const leftOutFor = ({ description, origin, version, directory, sizeBytes }: ExternalRuntime, reason: string): LeftOut => {
  return { name: description.name, origin, version, directory, sizeBytes, reason }
}

function refuseClash(name: string, registry: Registry, other: string | undefined): void {
  if (registry.isBuiltIn(name))
    throw new CedanaError('BAD_OPTIONS', `it is called ${name}, and that is the name of a plugin of cedana itself`)
  if (other !== undefined) throw new CedanaError('BAD_OPTIONS', `it is called ${name}, like the one in ${other}, which comes first`)
}

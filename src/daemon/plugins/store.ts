/**
 * The plugin directory: for each plugin a link, by its name, to its package in `.store`, whose name is its content. A package is complete and looked at
 * before the link leads to it, and the link changes at once: whoever looks finds the plugin that was, or the one that is.
 */
import { randomBytes } from 'node:crypto'
import { existsSync, readlinkSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, rename, rm, symlink, unlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Log } from '../../plugins/contract/host.js'
import type { RuntimeDescription } from '../../plugins/description.js'
import { DESCRIPTION_FILE, pluginDirectory, type PluginPaths, readPackage, readPlugin, RECORD_FILE } from '../../plugins/packages.js'
import { beTheOnlyOne } from '../db/only-one.js'
import { installCriu, removeCriu } from './criu.js'
import { refuseOthersAbove } from './owned.js'
import { fetchSource } from './source.js'
import { addDoor, walkPackage } from './stage.js'
import { PluginWorker } from './worker.js'

export interface StoreOptions {
  readonly paths: PluginPaths
  readonly loadTimeoutMs: number
  readonly uid: number
  readonly workingDirectory: string
  isBuiltIn(name: string): boolean
}
export interface Installed {
  readonly name: string
  readonly version: string
  readonly outcome: 'installed' | 'updated' | 'unchanged'
}

/** Another install at the same time is short. */
const LOCK_MS = 60_000

export class PluginStore {
  readonly #directory: string

  constructor(private readonly options: StoreOptions) {
    this.#directory = pluginDirectory(options.paths)
  }

  /** `spec`: a folder, a tarball, or the name of a plugin of the search path or of an npm package; or `criu`. */
  async install(spec: string, { integrity }: { readonly integrity?: string | undefined } = {}): Promise<Installed> {
    this.#mustBeRoot('install')
    if (spec === 'criu') return { name: 'criu', ...(await installCriu()) }
    using _ = await this.#lock()
    const scratch = join(this.#store, `staging-${randomBytes(6).toString('hex')}`)
    await mkdir(scratch, { mode: 0o700 })
    try {
      const { paths, workingDirectory } = this.options
      const source = await fetchSource(spec, { paths, workingDirectory, scratch, integrity })
      const { description, packageName, version } = this.#examine(source.directory)
      const staged = join(scratch, 'staged')
      const { digest } = await walkPackage(source.directory, { to: staged, mustBeOurs: false })
      await addDoor(staged)
      await mustBeDescribed(staged, { scratch, limitMs: this.options.loadTimeoutMs })
      const place = `${description.name}-${version}-${digest.slice(0, 16)}`
      const record = {
        package: packageName,
        version,
        from: source.from,
        integrity: source.integrity ?? null,
        digest,
        at: new Date().toISOString(),
      }
      await writeFile(join(staged, RECORD_FILE), `${JSON.stringify(record, null, 2)}\n`)
      const outcome = await this.#enable(staged, description.name, place)
      return { name: description.name, version, outcome }
    } finally {
      await rm(scratch, { recursive: true, force: true })
    }
  }

  async remove(name: string): Promise<void> {
    this.#mustBeRoot('remove')
    if (name === 'criu') return removeCriu()
    if (this.options.isBuiltIn(name)) throw new CedanaError('BAD_OPTIONS', `plugin ${name} is part of cedana and cannot be removed`)
    const place = this.#placeOf(name)
    if (place === undefined) throw new CedanaError('NO_SUCH_PACKAGE', `Plugin ${name} is not installed`)
    using _ = await this.#lock()
    await unlink(join(this.#directory, name))
    await this.#removeUnused()
  }

  /** Names of what is installed. */
  async names(): Promise<readonly string[]> {
    const entries = await readdir(this.#directory).catch(() => [])
    return entries.filter((name) => this.#placeOf(name) !== undefined).sort()
  }

  get #store(): string {
    return join(this.#directory, '.store')
  }

  #mustBeRoot(verb: string): void {
    if (this.options.uid !== 0)
      throw new CedanaError('PERMISSION_DENIED', `only root may ${verb} plugins: the daemon runs their code as root`)
  }

  /** Of its package in the store; undefined when it is not installed. */
  #placeOf(name: string): string | undefined {
    try {
      return basename(readlinkSync(join(this.#directory, name)))
    } catch {
      return undefined
    }
  }

  async #lock(): Promise<Disposable> {
    await mkdir(this.#store, { recursive: true, mode: 0o755 })
    await refuseOthersAbove(this.#store)
    const lock = await beTheOnlyOne(join(this.#store, '.lock'), LOCK_MS)
    await this.#removeUnused()
    return lock
  }

  #examine(directory: string): ReturnType<typeof readPlugin> {
    const found = readPlugin(directory)
    const { name } = found.description
    if (this.options.isBuiltIn(name))
      throw new CedanaError('BAD_OPTIONS', `${found.packageName} is called ${name}, and that is the name of a plugin of cedana itself`)
    const record = join(this.#directory, name, RECORD_FILE)
    const other = existsSync(record) ? readPackage(join(this.#directory, name)).packageName : found.packageName
    if (other !== found.packageName)
      throw new CedanaError('BAD_OPTIONS', `${found.packageName} is called ${name}, like the installed ${other}`, {
        hint: `remove that first: cedana plugin remove ${name}`,
      })
    return found
  }

  async #enable(staged: string, name: string, place: string): Promise<Installed['outcome']> {
    const former = this.#placeOf(name)
    const home = join(this.#store, place)
    if (former === place && existsSync(home)) return 'unchanged'
    await rm(home, { recursive: true, force: true })
    await rename(staged, home)
    const link = join(this.#store, `link-${randomBytes(6).toString('hex')}`)
    await symlink(join('.store', place), link)
    await rename(link, join(this.#directory, name))
    await this.#removeUnused()
    return former === undefined ? 'installed' : 'updated'
  }

  /** Whatever no link leads to: versions of before, and what an interrupted install left. */
  async #removeUnused(): Promise<void> {
    const used = new Set((await this.names()).map((name) => this.#placeOf(name)))
    for (const entry of await readdir(this.#store))
      if (!entry.startsWith('.') && !used.has(entry)) await rm(join(this.#store, entry), { recursive: true, force: true })
  }
}

const SILENT: Log = { debug: () => undefined, info: () => undefined, warn: () => undefined }

interface Look {
  /** For what the code makes for itself: it may not come to removing it. */
  readonly scratch: string
  readonly limitMs: number
}

/** What the code says of itself, in a process of its own. `entry`: the module that exports the plugin. Throws PLUGIN_FAILED when it is none. */
async function lookAt(entry: string, { scratch, limitMs: loadTimeoutMs }: Look): Promise<RuntimeDescription> {
  const temporaryDirectory = join(scratch, 'tmp')
  await mkdir(temporaryDirectory)
  const { worker, description } = await PluginWorker.start(entry, { name: entry, log: SILENT, loadTimeoutMs, temporaryDirectory })
  await worker.kill('has been looked at')
  return description
}

async function mustBeDescribed(directory: string, look: Look): Promise<RuntimeDescription> {
  const { entry, description } = readPlugin(directory)
  const found = await lookAt(entry, look)
  if (isDeepStrictEqual(found, description)) return description
  throw new CedanaError('PLUGIN_FAILED', `its code is not what ${DESCRIPTION_FILE} says`, {
    hint: 'make that again: cedana plugin manifest DIR',
  })
}

/**
 * What the code in `directory` says of itself. `check`: it must be what its file says already; else the file is written. That code is run from a copy
 * that has the `cedana/plugin` of this program, whatever the author has.
 */
export async function writeDescription(
  directory: string,
  { check, limitMs }: { readonly check: boolean; readonly limitMs: number },
): Promise<RuntimeDescription> {
  const { entry } = readPackage(directory)
  const scratch = await mkdtemp(join(tmpdir(), 'cedana-plugin-'))
  try {
    const copy = join(scratch, 'package')
    await walkPackage(directory, { to: copy, mustBeOurs: false })
    await addDoor(copy)
    if (check) return await mustBeDescribed(copy, { scratch, limitMs })
    const description = await lookAt(join(copy, entry.slice(directory.length)), { scratch, limitMs })
    await writeFile(join(directory, DESCRIPTION_FILE), `${JSON.stringify(description, null, 2)}\n`)
    return description
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}

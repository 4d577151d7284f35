/** Plugins that are packages of their own, as they lie on disk: in the plugin directory and on the search path. Reads data, and runs no code of theirs. */
import { existsSync, readdirSync, readFileSync, realpathSync } from 'node:fs'
import { join } from 'node:path'
import { CedanaError } from './contract/errors.js'
import { CONTRACT_VERSION, satisfies } from './contract/version.js'
import { parseDescription, type RuntimeDescription } from './description.js'

/** In the root of a package: its plugin as data, made from its code by `cedana plugin manifest`. */
export const DESCRIPTION_FILE = 'cedana-plugin.json'

/** In the root of an installed package: where it came from, and what it is by its files. */
export const RECORD_FILE = 'cedana-install.json'

/** Of the configuration. */
export interface PluginPaths {
  readonly lib_dir: string
  readonly local_search_path: string
}
export const pluginDirectory = ({ lib_dir }: PluginPaths): string => join(lib_dir, 'cedana', 'plugins')
const searchPath = ({ local_search_path }: PluginPaths): readonly string[] => local_search_path.split(':').filter(Boolean)

export interface PluginPackage {
  readonly directory: string
  /** Of the npm package. */
  readonly packageName: string
  readonly version: string
  /** Path of the module that exports `plugin`. */
  readonly entry: string
  readonly description: RuntimeDescription
}

const bad = (message: string, hint?: string): CedanaError => new CedanaError('BAD_OPTIONS', message, hint === undefined ? {} : { hint })

function readJson(path: string): Readonly<Record<string, unknown>> {
  const text = readFileSync(path, 'utf8')
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Readonly<Record<string, unknown>>
  } catch {
    // said below
  }
  throw bad(`${path} is not a JSON object`)
}

const textOf = (value: unknown): string | undefined => (typeof value === 'string' && value !== '' ? value : undefined)
const memberOf = (value: unknown, key: string): unknown =>
  typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>)[key] : undefined

/** As Node finds it: `exports`, then `main`. */
function entryOf(manifest: Readonly<Record<string, unknown>>): string {
  const door = memberOf(manifest['exports'], '.') ?? manifest['exports']
  return textOf(door) ?? textOf(memberOf(door, 'import')) ?? textOf(memberOf(door, 'default')) ?? textOf(manifest['main']) ?? 'index.js'
}

/** The npm side of a package of a plugin: whether it is one, and was made for a contract that we keep. Throws BAD_OPTIONS. */
export function readPackage(directory: string): Omit<PluginPackage, 'description'> {
  const path = join(directory, 'package.json')
  if (!existsSync(path)) throw bad(`${directory} has no package.json`)
  const manifest = readJson(path)
  const packageName = textOf(manifest['name'])
  const version = textOf(manifest['version'])
  const range = textOf(memberOf(manifest['cedana'], 'contract'))
  if (packageName === undefined || version === undefined) throw bad(`${path} has no name or no version`)
  if (range === undefined)
    throw bad(
      `${packageName} is not a plugin of cedana: its package.json has no cedana.contract`,
      `such as "cedana": { "contract": "^${CONTRACT_VERSION}" }`,
    )
  if (!satisfies(CONTRACT_VERSION, range))
    throw bad(
      `${packageName} ${version} was made for version ${range} of the plugin contract, this is ${CONTRACT_VERSION}`,
      'install a version of the plugin that fits',
    )
  if (manifest['type'] !== 'module') throw bad(`${packageName} is not an ES module: its package.json has no "type": "module"`)
  const [dependency] = Object.keys(manifest['dependencies'] ?? {})
  if (dependency !== undefined)
    throw bad(`${packageName} depends on ${dependency}: a plugin imports cedana/plugin alone`, 'bundle what else it needs')
  const entry = join(directory, entryOf(manifest))
  if (!entry.startsWith(`${directory}/`) || !existsSync(entry))
    throw bad(`${packageName} has no file ${entryOf(manifest)}`, 'build it first')
  return { directory, packageName, version, entry }
}

/** All of a package but its code. Throws BAD_OPTIONS. */
export function readPlugin(directory: string): PluginPackage {
  const found = readPackage(directory)
  const path = join(directory, DESCRIPTION_FILE)
  if (!existsSync(path)) throw bad(`${found.packageName} has no ${DESCRIPTION_FILE}`, `make it by: cedana plugin manifest ${directory}`)
  return { ...found, description: parseDescription(readJson(path), path) }
}

/** The digest that an installed package had when it was installed. */
export const installedDigest = (directory: string): string | undefined => textOf(readJson(join(directory, RECORD_FILE))['digest'])

/** Where a plugin should be. */
export interface PluginCandidate {
  readonly origin: 'installed' | 'local'
  /** Without links in it: another version is another directory. */
  readonly directory: string
  /** What it is called until it has told its own name. */
  readonly entry: string
}

const entriesOf = (directory: string): string[] => {
  try {
    return readdirSync(directory)
      .filter((name) => !name.startsWith('.') && name !== 'node_modules')
      .sort()
  } catch {
    return []
  }
}

function* within(directory: string, origin: PluginCandidate['origin']): Generator<PluginCandidate> {
  for (const entry of entriesOf(directory)) {
    const path = join(directory, entry)
    // A link that leads nowhere, or a file: not a plugin.
    if (existsSync(join(path, 'package.json'))) yield { origin, directory: realpathSync(path), entry }
  }
}

/** The search path comes first. A directory on it is a plugin, or holds some. */
export function pluginCandidates(paths: PluginPaths): readonly PluginCandidate[] {
  const local = searchPath(paths).flatMap((directory): PluginCandidate[] =>
    existsSync(join(directory, 'package.json'))
      ? [{ origin: 'local', directory: realpathSync(directory), entry: directory.split('/').filter(Boolean).at(-1) ?? '' }]
      : [...within(directory, 'local')],
  )
  return [...local, ...within(pluginDirectory(paths), 'installed')]
}

/** What the command line offers of them: one of each name, none that cannot be read. */
export function describedPlugins(paths: PluginPaths): readonly RuntimeDescription[] {
  const byName = new Map<string, RuntimeDescription>()
  for (const { directory } of pluginCandidates(paths)) {
    try {
      const { description } = readPlugin(directory)
      if (!byName.has(description.name)) byName.set(description.name, description)
    } catch {
      // `plugin list` says what is wrong with it.
    }
  }
  return [...byName.values()]
}

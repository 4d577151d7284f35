/** Where the package of a plugin comes from: a folder, a tarball, the search path, or an npm registry by npm itself. */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readFile, stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { CedanaError } from '../../plugins/contract/errors.js'
import { pluginCandidates, type PluginPaths, readPlugin } from '../../plugins/packages.js'

const execute = promisify(execFile)
const NPM_MS = 120_000
const TAR_MS = 60_000
/** `name`, `@scope/name`, each with `@version`; nothing that npm takes for a flag, a path or an address. */
export const NPM_SPEC = /^(@[a-z0-9][\w.-]*\/)?[a-z0-9][\w.-]*(@[\w.^~<>=*-]+)?$/

export interface Source {
  /** What was asked for, in full. */
  readonly from: string
  /** Holds package.json. */
  readonly directory: string
  /** Of the tarball, as npm writes it; a folder has none. */
  readonly integrity: string | undefined
}

interface Asked {
  readonly paths: PluginPaths
  /** Of the caller. */
  readonly workingDirectory: string
  /** An empty directory for what is fetched and unpacked. */
  readonly scratch: string
  /** What the tarball must have: `sha512-…`. */
  readonly integrity: string | undefined
}

const missing = (message: string, hint?: string): CedanaError =>
  new CedanaError('NO_SUCH_PACKAGE', message, hint === undefined ? {} : { hint })

/** Throws NO_SUCH_PACKAGE, or BAD_OPTIONS when it is not what was expected. */
export async function fetchSource(spec: string, asked: Asked): Promise<Source> {
  const isPath = /^[./]/.test(spec) || /[.](tgz|tar[.]gz)$/.test(spec)
  if (isPath) return fromPath(resolve(asked.workingDirectory, spec), asked)
  const local = onSearchPath(spec, asked.paths)
  if (local !== undefined) return fromPath(local, asked)
  if (!NPM_SPEC.test(spec)) throw missing(`${spec} is neither a path nor the name of an npm package`)
  return fromNpm(spec, asked)
}

/** By the name of the plugin, or of its directory. */
function onSearchPath(name: string, paths: PluginPaths): string | undefined {
  const local = pluginCandidates(paths).filter(({ origin }) => origin === 'local')
  const isNamed = (directory: string): boolean => {
    try {
      return readPlugin(directory).description.name === name
    } catch {
      return false
    }
  }
  return local.find(({ directory, entry }) => entry === name || isNamed(directory))?.directory
}

async function fromPath(path: string, asked: Asked): Promise<Source> {
  if (!existsSync(path)) throw missing(`there is no ${path}`)
  if ((await stat(path)).isDirectory()) {
    if (asked.integrity !== undefined) throw new CedanaError('BAD_OPTIONS', `${path} is a folder: only tarballs have an integrity`)
    return { from: path, directory: path, integrity: undefined }
  }
  return unpack(path, path, asked)
}

async function unpack(tarball: string, from: string, { scratch, integrity: wanted }: Asked): Promise<Source> {
  const integrity = `sha512-${createHash('sha512')
    .update(await readFile(tarball))
    .digest('base64')}`
  if (wanted !== undefined && wanted !== integrity)
    throw new CedanaError('IMAGE_CORRUPT', `${from} is not what was asked for: its integrity is ${integrity}, not ${wanted}`)
  const directory = join(scratch, 'package')
  await mkdir(directory)
  const flags = ['--no-same-owner', '--no-same-permissions', '--strip-components=1', '-C', directory]
  await execute('tar', ['-xzf', tarball, ...flags], { timeout: TAR_MS }).catch((cause: unknown) => {
    throw new CedanaError('BAD_OPTIONS', `cannot unpack ${from}`, { cause })
  })
  return { from, directory, integrity }
}

interface Packed {
  readonly id: string
  readonly filename: string
}

/** npm compares what it gets with the integrity that the registry states. */
async function fromNpm(spec: string, asked: Asked): Promise<Source> {
  const argv = ['pack', spec, '--json', '--ignore-scripts', '--pack-destination', asked.scratch]
  const { stdout } = await execute('npm', argv, { cwd: asked.scratch, timeout: NPM_MS }).catch((cause: unknown) => {
    throw npmError(spec, cause as NpmFailure)
  })
  const [packed] = JSON.parse(stdout) as readonly Packed[]
  if (packed === undefined) throw missing(`npm found no package ${spec}`)
  return unpack(join(asked.scratch, packed.filename), packed.id, asked)
}

export interface NpmFailure extends Error {
  readonly code?: string | number
  readonly stdout?: string
  readonly stderr?: string
}

/** `E404`, `EINTEGRITY`; empty: it did not say. */
export const npmCode = ({ stderr = '' }: NpmFailure): string => /npm (?:ERR!|error) code (\S+)/.exec(stderr)?.[1] ?? ''

function npmError(spec: string, failed: NpmFailure): CedanaError {
  if (failed.code === 'ENOENT') return new CedanaError('HOST_UNFIT', 'npm is not installed', { hint: 'give a folder or a tarball instead' })
  const code = npmCode(failed)
  if (code === 'E404' || code === 'ETARGET') return missing(`Plugin ${spec} is not available`, 'npm has no such package or version')
  if (code === 'EINTEGRITY')
    return new CedanaError('IMAGE_CORRUPT', `what npm got for ${spec} is not what the registry says it is`, { cause: failed })
  return new CedanaError('STORAGE_FAILED', `npm could not get ${spec}${code === '' ? '' : ` (${code})`}`, { cause: failed })
}

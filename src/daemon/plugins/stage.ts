/** A copy of a plugin's package that is ours alone, with all that its code needs beside it. Its name is its content: changed code has another path. */
import { createHash, type Hash } from 'node:crypto'
import { lstat, mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { CedanaError } from '../../plugins/contract/errors.js'
import * as contract from '../../plugins/contract/index.js'
import { RECORD_FILE } from '../../plugins/packages.js'
import { refuseOthers } from './owned.js'

const MAX_FILES = 5000
const MAX_BYTES = 64 * 1024 * 1024
/** Of the author's work or of ours, and not of the package. */
const NOT_COPIED = ['node_modules', '.git', RECORD_FILE]

/** By this the module that a plugin imports finds the contract of the program that it is part of: there is one, whatever is installed where. */
export const DOOR = Symbol.for('cedana/plugin')

interface Contents {
  readonly digest: string
  readonly sizeBytes: number
}

export interface WalkOptions {
  /** Absent: it is only read. */
  readonly to?: string
  /** Refuses what others can write. */
  readonly mustBeOurs: boolean
}

class Walk {
  readonly #hash: Hash = createHash('sha256')
  #files = 0
  sizeBytes = 0

  constructor(private readonly options: WalkOptions) {}

  get digest(): string {
    return this.#hash.digest('hex')
  }

  async directory(path: string, to: string | undefined, name = ''): Promise<void> {
    if (to !== undefined) await mkdir(to, { mode: 0o755 })
    for (const entry of (await readdir(path)).sort()) {
      if (name === '' && NOT_COPIED.includes(entry)) continue
      const [from, inner] = [join(path, entry), join(name, entry)]
      if (this.options.mustBeOurs) await refuseOthers(from)
      const stat = await lstat(from)
      const target = to === undefined ? undefined : join(to, entry)
      if (stat.isDirectory()) await this.directory(from, target, inner)
      else if (stat.isFile()) await this.#file(from, target, inner, stat.mode)
      else throw new CedanaError('BAD_OPTIONS', `${from} is neither a file nor a directory: a plugin has only those`)
    }
  }

  async #file(from: string, to: string | undefined, name: string, mode: number): Promise<void> {
    const content = await readFile(from)
    this.sizeBytes += content.length
    if (++this.#files > MAX_FILES || this.sizeBytes > MAX_BYTES)
      throw new CedanaError('BAD_OPTIONS', `${from}: a plugin has at most ${MAX_FILES} files and ${MAX_BYTES >> 20} MiB`)
    const isProgram = (mode & 0o111) !== 0
    this.#hash.update(JSON.stringify([name, isProgram, content.length])).update(content)
    if (to !== undefined) await writeFile(to, content, { mode: isProgram ? 0o755 : 0o644, flag: 'wx' })
  }
}

/** What a package is, by its files. With `to`, which must not exist, they are copied there. */
export async function walkPackage(directory: string, options: WalkOptions): Promise<Contents> {
  const walk = new Walk(options)
  await walk.directory(directory, options.to)
  return { digest: walk.digest, sizeBytes: walk.sizeBytes }
}

/** Gives a copied package the `cedana/plugin` that it imports. */
export async function addDoor(directory: string): Promise<void> {
  const home = join(directory, 'node_modules', 'cedana')
  await mkdir(home, { recursive: true, mode: 0o755 })
  const manifest = { name: 'cedana', type: 'module', exports: { './plugin': './plugin.js' } }
  await writeFile(join(home, 'package.json'), JSON.stringify(manifest))
  const names = Object.keys(contract).filter((name) => name !== 'default')
  await writeFile(join(home, 'plugin.js'), `export const { ${names.join(', ')} } = globalThis[Symbol.for('${DOOR.description}')]\n`)
}

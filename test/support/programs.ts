/** Builds the C programs of test/programs, once per content. */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const SOURCES = join(import.meta.dirname, '..', 'programs')
const FLAGS = ['-std=gnu17', '-D_GNU_SOURCE', '-O1', '-g', '-Wall', '-Wextra', '-Werror', '-pthread']
const CACHE = `/tmp/cedana-test-programs-${process.getuid?.() ?? 0}`

const built = new Map<string, Promise<string>>()

async function build(name: string, flags: readonly string[]): Promise<string> {
  const headers = (await readdir(SOURCES)).filter((file) => file.endsWith('.h')).sort()
  const hash = createHash('sha256').update(flags.join(' '))
  for (const file of [`${name}.c`, ...headers]) hash.update(await readFile(join(SOURCES, file)))
  // The program keeps its name, so that it can be recognized in lists of processes.
  const directory = join(CACHE, hash.digest('hex').slice(0, 16))
  const path = join(directory, name)
  if (await stat(path).catch(() => undefined)) return path
  await mkdir(directory, { recursive: true })
  const temporary = `${path}.${process.pid}`
  try {
    await promisify(execFile)('cc', [...flags, '-o', temporary, join(SOURCES, `${name}.c`)])
    await rename(temporary, path)
  } finally {
    await rm(temporary, { force: true })
  }
  return path
}

/** Path of the built program; a static one runs in any root file system. */
export function program(name: string, kind: 'dynamic' | 'static' = 'dynamic'): Promise<string> {
  const key = `${name} ${kind}`
  let path = built.get(key)
  if (path === undefined) built.set(key, (path = build(name, kind === 'static' ? [...FLAGS, '-static'] : FLAGS)))
  return path
}

/** For those who write plugins: a package to begin with, and the `cedana/plugin` that its source imports. */
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CedanaError } from '../../plugins/contract/errors.js'
import { PLUGIN_NAME } from '../../plugins/contract/runtime.js'
import { CONTRACT_VERSION } from '../../plugins/contract/version.js'

const ROOT = fileURLToPath(new URL('../../../', import.meta.url))
const TEMPLATE = join(ROOT, 'examples', 'template')

/** Has the package of an author import the `cedana/plugin` of this program, until npm installs its packages again. */
export async function linkDoor(directory: string): Promise<void> {
  if (!existsSync(join(directory, 'package.json'))) throw new CedanaError('BAD_OPTIONS', `${directory} has no package.json`)
  const link = join(directory, 'node_modules', 'cedana')
  await mkdir(dirname(link), { recursive: true })
  await rm(link, { recursive: true, force: true })
  await symlink(ROOT.replace(/[/]$/, ''), link)
}

/** A complete package of a runtime plugin in `directory`, which must not exist. */
export async function createPackage(name: string, directory: string): Promise<void> {
  if (!PLUGIN_NAME.test(name)) throw new CedanaError('BAD_OPTIONS', `${name} is no name for a plugin: a-z, 0-9 and -, a letter first`)
  if (existsSync(directory)) throw new CedanaError('BAD_OPTIONS', `${directory} exists already`)
  for (const entry of await readdir(TEMPLATE, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const from = join(entry.parentPath, entry.name)
    // npm does not publish files of that name.
    const to = join(directory, from.slice(TEMPLATE.length).replace(/[/]gitignore$/, '/.gitignore'))
    await mkdir(dirname(to), { recursive: true })
    const text = await readFile(from, 'utf8')
    await writeFile(to, text.replaceAll('__NAME__', name).replaceAll('__CONTRACT__', CONTRACT_VERSION))
  }
  await linkDoor(directory)
}

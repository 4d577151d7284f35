/** Where a program is, as a shell would find it: looked up here, because PATH is the caller's. */
import { constants } from 'node:fs'
import { access, stat } from 'node:fs/promises'
import { CliError } from './exit-codes.js'
import type { World } from './session.js'

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK)
    return (await stat(path)).isFile()
  } catch {
    return false
  }
}

/** A name with a slash stays as it is: the daemon starts it from our working directory. */
export async function findExecutable(name: string, { env, cwd }: Pick<World, 'env' | 'cwd'>): Promise<string> {
  if (name.includes('/')) {
    const path = name.startsWith('/') ? name : `${cwd}/${name}`
    if (await isExecutable(path)) return name
    const found = await stat(path).catch(() => undefined)
    const shown = `exec: ${JSON.stringify(name)}`
    if (found === undefined) throw new CliError(`${shown}: no such file or directory`)
    if (found.isDirectory()) throw new CliError(`${shown}: is a directory`)
    throw new CliError(`${shown}: permission denied`, { hint: 'it must be a program that you may execute (chmod +x)' })
  }
  for (const directory of (env.PATH ?? '').split(':')) {
    const path = `${directory === '' ? cwd : directory}/${name}`
    if (await isExecutable(path)) return path
  }
  throw new CliError(`exec: ${JSON.stringify(name)}: executable file not found in $PATH`, { hint: 'install it, or name it by its path' })
}

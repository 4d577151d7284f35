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
    const exists = await stat(path).then(
      () => true,
      () => false,
    )
    throw new CliError(`exec: ${JSON.stringify(name)}: ${exists ? 'permission denied' : 'no such file or directory'}`)
  }
  for (const directory of (env.PATH ?? '').split(':')) {
    const path = `${directory === '' ? cwd : directory}/${name}`
    if (await isExecutable(path)) return path
  }
  throw new CliError(`exec: ${JSON.stringify(name)}: executable file not found in $PATH`)
}

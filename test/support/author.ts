/** What authors of plugins do with npm, from what is here: no registry is asked. */
import { execFile } from 'node:child_process'
import { mkdirSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { CEDANA, type World } from './world.js'

const execute = promisify(execFile)
const ROOT = dirname(dirname(CEDANA))

export function installTypeScript(directory: string): void {
  mkdirSync(join(directory, 'node_modules/.bin'), { recursive: true })
  mkdirSync(join(directory, 'node_modules/@types'))
  for (const name of ['typescript', '@types/node', 'undici-types'])
    symlinkSync(join(ROOT, 'node_modules', name), join(directory, 'node_modules', name))
  symlinkSync(join(ROOT, 'node_modules/typescript/bin/tsc'), join(directory, 'node_modules/.bin/tsc'))
}

/** Answers what it prints. */
export async function npm(world: World, directory: string, args: readonly string[]): Promise<string> {
  const env = { ...world.env, PATH: `${dirname(CEDANA)}:${process.env['PATH'] ?? ''}` }
  try {
    return (await execute('npm', [...args], { cwd: directory, env })).stdout
  } catch (thrown) {
    const { stdout, stderr } = thrown as { readonly stdout: string; readonly stderr: string }
    throw new Error(`npm ${args.join(' ')} in ${directory}:\n${stdout}${stderr}`)
  }
}

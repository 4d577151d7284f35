/** The freezer of a cgroup, of either version. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { readText } from './processes.js'

const [VERSION_1, VERSION_2] = ['freezer.state', 'cgroup.freeze'] as const

export async function isFrozen(directory: string): Promise<boolean> {
  const state = (await readText(join(directory, VERSION_1))) ?? (await readText(join(directory, VERSION_2)))
  return state !== undefined && !/^(THAWED|0)$/.test(state.trim())
}

export async function thaw(directory: string): Promise<void> {
  const isVersion1 = (await readText(join(directory, VERSION_1))) !== undefined
  await writeFile(join(directory, isVersion1 ? VERSION_1 : VERSION_2), isVersion1 ? 'THAWED' : '0', { flag: 'r+' })
}

/** Notes of what an operation has in hand, for who comes after a cedana that was killed. None of them is durable: a power cut may leave an empty file. */
import { randomBytes } from 'node:crypto'
import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { readText } from '../host/processes.js'
import { writeWhole } from '../host/write-whole.js'
import { type Environment, hasMaker, makerName } from './environment.js'

/** In a directory of such notes, under the name of this process. Answers its path. */
export async function writeNote(env: Environment, directory: string, note: object): Promise<string> {
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const path = join(directory, `${makerName(await env.self())}-${randomBytes(6).toString('hex')}`)
  await writeWhole(path, JSON.stringify(note))
  return path
}

/** Undefined: there is none, or nothing is left of it. */
export async function readNote(path: string): Promise<unknown> {
  const text = await readText(path)
  if (text === undefined) return undefined
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Those of dead processes. What is none of them goes. */
export async function* leftNotes(directory: string): AsyncGenerator<{ readonly path: string; readonly note: unknown }> {
  for (const name of await readdir(directory).catch(() => [])) {
    if (await hasMaker(name)) continue
    const path = join(directory, name)
    const note = name.endsWith('.new') ? undefined : await readNote(path)
    if (note === undefined) await rm(path, { force: true })
    else yield { path, note }
  }
}

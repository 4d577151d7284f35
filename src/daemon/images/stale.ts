/** Removes what a killed dump has left. */
import { lstat, open, readdir } from 'node:fs/promises'
import { attempt, errnoOf } from './failures.js'
import { at, OPEN_DIRECTORY } from './files.js'
import { parsePartial, type Partial } from './layout.js'
import { removeEntry } from './writer.js'

/** A partial of another boot may be of another machine that shares the directory, at work right now: left alone for so long. */
const FOREIGN_AGE_MS = 24 * 3600 * 1000

export interface Liveness {
  readonly bootId: string
  /** Whether the process with this PID and start time is there. */
  isAlive(pid: number, startTicks: string): Promise<boolean>
}

/** Names of the partials removed from `directory`; none when it does not exist. */
export async function removeStale(directory: string, liveness: Liveness): Promise<readonly string[]> {
  const parent = await open(directory, OPEN_DIRECTORY).catch((thrown: unknown) => {
    if (errnoOf(thrown) === 'ENOENT' || errnoOf(thrown) === 'ENOTDIR') return undefined
    throw thrown
  })
  if (!parent) return []
  await using _ = parent
  const removed: string[] = []
  for (const entry of await readdir(at(parent.fd, '.'))) {
    const partial = parsePartial(entry, liveness.bootId)
    if (!partial) continue
    const stats = await lstat(at(parent.fd, entry)).catch(() => undefined)
    if (!stats || (!stats.isDirectory() && !stats.isFile())) continue
    if (await isInUse(partial, stats.mtimeMs, liveness)) continue
    await attempt(`remove ${directory}/${entry}`, () => removeEntry(parent.fd, entry, stats.isDirectory() ? 'directory' : 'file'))
    removed.push(entry)
  }
  return removed
}

async function isInUse(partial: Partial, changedMs: number, liveness: Liveness): Promise<boolean> {
  if (partial.isThisBoot) return liveness.isAlive(partial.pid, partial.startTicks)
  return Date.now() - changedMs < FOREIGN_AGE_MS
}

/** Files that are there as a whole or not at all, whoever looks and whoever is killed meanwhile. Not made durable. */
import { rename, rm, writeFile } from 'node:fs/promises'
import { failure } from '../images/failures.js'

const HINTS = { NO_SPACE: 'free some space there' }

export async function writeWhole(path: string, content: string | Uint8Array, mode = 0o600): Promise<void> {
  const made = `${path}.new`
  try {
    await writeFile(made, content, { mode })
    await rename(made, path)
  } catch (thrown) {
    await rm(made, { force: true }).catch(() => undefined)
    throw failure(thrown, `write ${path}`, HINTS)
  }
}

/** Files that are there as a whole or not at all, whoever looks and whoever is killed meanwhile. Not made durable. */
import { rename, writeFile } from 'node:fs/promises'

export async function writeWhole(path: string, text: string, mode = 0o600): Promise<void> {
  await writeFile(`${path}.new`, text, { mode })
  await rename(`${path}.new`, path)
}

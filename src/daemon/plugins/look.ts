/** A first look at the code of a plugin: it runs in its process, and leaves nothing behind. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { Log } from '../../plugins/contract/host.js'
import type { RuntimeDescription } from '../../plugins/description.js'
import { PluginWorker } from './worker.js'

const SILENT: Log = { debug: () => undefined, info: () => undefined, warn: () => undefined }

/** What the code says of itself. `entry`: the module that exports the plugin. Throws PLUGIN_FAILED when it is none. */
export async function lookAt(entry: string, loadTimeoutMs: number): Promise<RuntimeDescription> {
  // What it makes for itself is ours to remove: it may not come to it.
  const temporaryDirectory = await mkdtemp(join(tmpdir(), 'cedana-look-'))
  try {
    const options = { name: dirname(entry), log: SILENT, loadTimeoutMs, temporaryDirectory }
    const { worker, description } = await PluginWorker.start(entry, options)
    await worker.kill('has been looked at')
    return description
  } finally {
    await rm(temporaryDirectory, { recursive: true, force: true })
  }
}

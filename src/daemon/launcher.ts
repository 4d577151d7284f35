/**
 * The program of a launcher, `bin/launcher`: what a shim starts for a plugin that brings its targets up itself (see `Program.launch`). One starts
 * with each container, so it loads no more than that takes. Its argument is the file that tells what to do.
 */
import { readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { BUILTINS, loadBuiltins } from '../plugins/index.js'
import { Registry } from '../plugins/registry.js'
import { cudaOf } from './host/cuda.js'
import { launcherHost, type LaunchOrder, SILENT } from './operations/launch.js'

async function main(file: string, signal: AbortSignal): Promise<number> {
  const order = JSON.parse(await readFile(file, 'utf8')) as LaunchOrder
  const directory = dirname(file)
  const isBuiltIn = Object.hasOwn(BUILTINS, order.type)
  // One that is not may build on any of those that are.
  const runtimes = new Registry(await loadBuiltins(isBuiltIn ? [order.type] : undefined))
  const plugins = isBuiltIn ? undefined : await externals(runtimes, order, directory)
  const cuda = cudaOf(order.config.gpu)
  try {
    return await launcherHost({ runtimes, cuda, environment: process.env, directory, signal }, order)
  } finally {
    cuda.close()
    plugins?.close()
  }
}

async function externals(registry: Registry, { config }: LaunchOrder, directory: string): Promise<{ close(): void }> {
  const { PluginLoader } = await import('./plugins/loader.js')
  const { load_timeout_ms: loadTimeoutMs, verb_timeout_ms: verbTimeoutMs } = config.plugins
  const times = { loadTimeoutMs, verbTimeoutMs }
  const plugins = new PluginLoader({ registry, paths: config.plugins, ...times, log: SILENT, workDirectory: async () => directory })
  await plugins.find()
  return plugins
}

const cancel = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => cancel.abort())
void main(process.argv[2] ?? '', cancel.signal).then((code) => process.exit(code))

/** `cedana/plugin/testing`: for tests of plugins. The conformance suite, and the host that a plugin gets from the daemon, without a daemon. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { CudaChild } from './daemon/host/cuda.js'
import { hostFor } from './daemon/operations/host.js'
import { IsolatedPlugin } from './daemon/plugins/isolated.js'
import { loadCode } from './daemon/plugins/load.js'
import { addDoor, walkPackage } from './daemon/plugins/stage.js'
import type { Host, Log } from './plugins/contract/host.js'
import type { RuntimeManifest } from './plugins/contract/runtime.js'
import { loadBuiltins } from './plugins/index.js'
import { readPlugin } from './plugins/packages.js'
import { Registry } from './plugins/registry.js'

export { manifestProblems } from './plugins/conformance/manifest.js'
export { type ConformanceCase, type LiveTarget, runtimeCases, type RuntimeWorld } from './plugins/conformance/runtime.js'

const SILENT: Log = { debug: () => undefined, info: () => undefined, warn: () => undefined }
const NO_CUDA = { library: '/nowhere/libcuda.so.1', management: '/nowhere/libnvidia-ml.so.1', callTimeoutMs: 10_000 }

export interface TestHost {
  /** This machine: what a plugin does by it really happens. It delegates to the runtimes that are part of cedana. */
  readonly host: Host
  close(): void
}

const builtins = await loadBuiltins()

export function testHost({ log = SILENT }: { readonly log?: Log } = {}): TestHost {
  const directory = mkdtempSync(join(tmpdir(), 'cedana-test-'))
  const cuda = new CudaChild(NO_CUDA)
  const host = hostFor({ runtimes: new Registry(builtins), log, cuda, config: { run_dir: directory } }, new AbortController().signal)
  return {
    host,
    close: () => {
      cuda.close()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

export interface OpenPlugin {
  /** Its verbs run in a process of their own, as with the daemon. */
  readonly plugin: RuntimeManifest
  close(): void
}

/** The plugin of a built package, as the daemon has it. Throws when it could not be installed. */
export async function openPlugin(
  packageDirectory: string,
  {
    log = SILENT,
    loadTimeoutMs = 10_000,
    verbTimeoutMs = 60_000,
  }: Partial<{ log: Log; loadTimeoutMs: number; verbTimeoutMs: number }> = {},
): Promise<OpenPlugin> {
  const directory = resolve(packageDirectory)
  const { description, entry } = readPlugin(directory)
  const scratch = mkdtempSync(join(tmpdir(), 'cedana-plugin-'))
  const copied = join(scratch, 'package', entry.slice(directory.length))
  const isolated = new IsolatedPlugin({
    ...{ description, log, loadTimeoutMs, verbTimeoutMs },
    entry: async () => copied,
    onUnusable: (thrown) => log.warn({ err: thrown.message }, 'plugin cannot be used'),
  })
  const end = (): void => {
    isolated.close()
    rmSync(scratch, { recursive: true, force: true })
  }
  try {
    await walkPackage(directory, { to: join(scratch, 'package'), mustBeOurs: false })
    await addDoor(join(scratch, 'package'))
    await isolated.check()
    const { manifest } = await loadCode(copied)
    return { plugin: Object.freeze({ ...manifest, load: async () => isolated.loaded.verbs }), close: end }
  } catch (thrown) {
    end()
    throw thrown
  }
}

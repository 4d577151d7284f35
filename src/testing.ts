/** `cedana/plugin/testing`: for tests of plugins. The conformance suite, and the host that a plugin gets from the daemon, without a daemon. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CudaChild } from './daemon/host/cuda.js'
import { hostFor } from './daemon/operations/host.js'
import type { Host, Log } from './plugins/contract/host.js'
import { loadBuiltins } from './plugins/index.js'
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

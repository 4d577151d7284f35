import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

const root = dirname(dirname(fileURLToPath(import.meta.url)))

// Where more certificates are named, each Node that starts reads them all first: half of what a short command takes. No test needs one.
delete process.env.NODE_EXTRA_CA_CERTS

const PATIENT = { testTimeout: 60_000, hookTimeout: 60_000 }

/** All in one queue, in the order of their names: the many short files of `unit` come last and leave no core idle. */
const project = (name, include, more = {}) => ({ test: { name, root, include, ...more } })

export default defineConfig({
  root,
  test: {
    pool: 'forks',
    maxWorkers: 2,
    projects: [
      // The limits are for what hangs: how long a test takes is up to the machine.
      project('unit', ['src/**/*.test.ts', 'addon/**/*.test.ts', 'bench/**/*.test.ts', 'test/support/**/*.test.ts'], PATIENT),
      project('contract', ['test/contract/**/*.test.ts'], PATIENT),
      project('style', ['test/style/**/*.test.ts'], { testTimeout: 120_000 }),
      // Real processes, CRIU, root.
      project('e2e', ['test/e2e/**/*.test.ts'], { testTimeout: 120_000, hookTimeout: 120_000 }),
    ],
  },
})

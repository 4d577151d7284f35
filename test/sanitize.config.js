/** For scripts/sanitize: the tests of the addon, each file in a process that has the runtime of the sanitizer loaded. */
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

// Inherited by the workers; vitest itself, with native code of others in it, has started without.
process.env['LD_PRELOAD'] = process.env['SANITIZER_RUNTIME']

export default defineConfig({
  test: {
    root: dirname(dirname(fileURLToPath(import.meta.url))),
    pool: 'forks',
    maxWorkers: 2,
    include: ['addon/**/*.test.ts'],
    // There a process of its own loads the addon.
    testNamePattern: /^(?!.*not permitted in a namespace)/,
    setupFiles: ['test/support/sanitized.ts'],
    testTimeout: 120_000,
  },
})

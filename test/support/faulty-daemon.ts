/**
 * A daemon that dies by SIGKILL at one step: CEDANA_TEST_FAULT is a file with the point (`dump: before seal`), read at every step, so that one
 * daemon serves until it is told to die.
 */
import { existsSync, readFileSync } from 'node:fs'
import { loadConfig } from '../../src/daemon/config.js'
import { startDaemon } from '../../src/daemon/main.js'
import { pointName, type Point } from './faults.js'

const file = process.env['CEDANA_TEST_FAULT'] ?? ''
const reach = (point: Point): void => {
  if (existsSync(file) && readFileSync(file, 'utf8') === pointName(point)) process.kill(process.pid, 'SIGKILL')
}
const { config } = loadConfig({ env: process.env, uid: process.getuid?.() ?? 0 })
const stop = new AbortController()
process.on('SIGTERM', () => {
  stop.abort()
})
await startDaemon(config, {
  signal: stop.signal,
  faults: {
    before: (operation, step) => {
      reach({ operation, step, when: 'before' })
    },
    after: (operation, step) => {
      reach({ operation, step, when: 'after' })
    },
  },
})
// As the command line does: what it still waits for, it waits for no more.
process.exit()

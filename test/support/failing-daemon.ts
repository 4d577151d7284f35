/** A daemon in the process of the tests, whose steps fail when they are told to. */
import { afterAll, beforeAll, expect } from 'vitest'
import { loadConfig } from '../../src/daemon/config.js'
import { startDaemon } from '../../src/daemon/main.js'
import { failing, type FaultPlan, type Point } from './faults.js'
import type { World } from './world.js'

export interface FailingDaemon {
  readonly plan: FaultPlan
  /** The points an operation passes when all goes well. */
  pointsOf(operation: string, work: () => Promise<unknown>): Promise<readonly Point[]>
}

/** `world`: one without a daemon of its own. */
export function useFailingDaemon(world: World): FailingDaemon {
  const plan = failing()
  const stop = new AbortController()
  let daemon: Promise<void>
  beforeAll(async () => {
    const { config } = loadConfig({ env: { ...world.env, CEDANA_LOG_LEVEL: 'disabled' }, uid: 0 })
    await new Promise<void>((onReady, reject) => {
      daemon = startDaemon(config, { signal: stop.signal, faults: plan, onReady: () => onReady() })
      daemon.catch(reject)
    })
  }, 30_000)
  afterAll(async () => {
    stop.abort()
    await daemon
  })
  return {
    plan,
    pointsOf: async (operation, work) => {
      plan.seen.length = 0
      await work()
      const points = plan.seen.filter((point) => point.operation === operation)
      expect(points.length).toBeGreaterThan(10)
      return points
    },
  }
}

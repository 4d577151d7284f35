import { setTimeout as sleep } from 'node:timers/promises'

/** The first value of `probe` that is neither undefined, null nor false; looks every few milliseconds. `what` names it when time runs out. */
export async function until<T>(what: string, probe: () => T | Promise<T>, timeoutMs = 10_000): Promise<NonNullable<Exclude<T, false>>> {
  const end = performance.now() + timeoutMs
  for (;;) {
    const value = await probe()
    if (value !== undefined && value !== null && value !== false) return value as NonNullable<Exclude<T, false>>
    if (performance.now() > end) throw new Error(`not within ${timeoutMs} ms: ${what}`)
    await sleep(10)
  }
}

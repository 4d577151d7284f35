import { setTimeout as sleep } from 'node:timers/promises'
import { isUnreachable } from './client.js'

/** How long a containerd that restarts is waited for, and how often it is looked for. */
const AWAY_MS = 5000
const LOOK_MS = 50

/** What is taken back is also where containerd restarts meanwhile: what it knew it knows again then. */
export async function onceBack<T>(step: () => Promise<T>, until = Date.now() + AWAY_MS): Promise<T> {
  for (;;) {
    try {
      return await step()
    } catch (thrown) {
      if (!isUnreachable(thrown) || Date.now() > until) throw thrown
      await sleep(LOOK_MS)
    }
  }
}

/** What has been made, to be taken back when what follows fails. */
export class Undo {
  readonly #steps: (() => Promise<unknown>)[] = []

  add(step: () => Promise<unknown>): void {
    this.#steps.push(step)
  }

  /** Carries out `work`; after a failure, whatever was added meanwhile, the last first, as far as it goes. */
  async around(work: () => Promise<void>): Promise<void> {
    try {
      await work()
    } catch (thrown) {
      const until = Date.now() + AWAY_MS
      for (const step of this.#steps.reverse()) await onceBack(step, until).catch(() => undefined)
      throw thrown
    }
  }
}

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
      for (const step of this.#steps.reverse()) await step().catch(() => undefined)
      throw thrown
    }
  }
}

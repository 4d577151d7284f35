/** One operation per job at a time. */
import { CedanaError } from '../../plugins/contract/errors.js'

export class JobLocks {
  private readonly holders = new Map<string, string>()

  /** `what`: a job id, or other words for what is locked (`PID 7`). Throws JOB_BUSY, and names the operation that runs. */
  take(what: string, operation: string): Disposable {
    const holder = this.holders.get(what)
    if (holder !== undefined) {
      const name = what.includes(' ') ? what : `job ${what}`
      throw new CedanaError('JOB_BUSY', `${name} is busy: ${holder} is running`, {
        detail: { operation: holder },
        hint: 'try again when it is over',
      })
    }
    this.holders.set(what, operation)
    let isHeld = true
    return {
      // A second dispose must not release what somebody else holds by then.
      [Symbol.dispose]: () => {
        if (isHeld) this.holders.delete(what)
        isHeld = false
      },
    }
  }
}

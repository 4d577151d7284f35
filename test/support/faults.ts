/** Makes any step of any operation fail, before or after it did its work; and remembers which steps there were. */
import type { Faults } from '../../src/daemon/operations/operation.js'
import { CedanaError } from '../../src/plugins/contract/errors.js'

export interface Point {
  readonly operation: string
  readonly step: string
  readonly when: 'before' | 'after'
}

export const pointName = ({ operation, step, when }: Point): string => `${operation}: ${when} ${step}`

export class FaultPlan implements Faults {
  readonly seen: Point[] = []
  #armed: Point | undefined

  /** The next time this point is reached, `strike` is called; once. */
  constructor(private readonly strike: (point: Point) => void) {}

  arm(point: Point | undefined): void {
    this.#armed = point
  }

  get isArmed(): boolean {
    return this.#armed !== undefined
  }

  before(operation: string, step: string): void {
    this.#reach({ operation, step, when: 'before' })
  }

  after(operation: string, step: string): void {
    this.#reach({ operation, step, when: 'after' })
  }

  #reach(point: Point): void {
    this.seen.push(point)
    if (this.#armed === undefined || pointName(this.#armed) !== pointName(point)) return
    this.#armed = undefined
    this.strike(point)
  }
}

/** A plan whose faults are errors of the operation. */
export const failing = (): FaultPlan =>
  new FaultPlan((point) => {
    throw new CedanaError('STORAGE_FAILED', `injected fault ${pointName(point)}`)
  })

/** What is written on containers that cedana has made: those it may remove, and none else. */
import type { Target } from '../contract/job.js'

/** The target that the container was made for; before that is there, BEGUN. */
export const MADE_FOR = 'cedana/made-for'
export const BEGUN = 'begun'
export const nameOf = ({ pid, startTicks }: Pick<Target, 'pid' | 'startTicks'>): string => `${pid}-${startTicks}`

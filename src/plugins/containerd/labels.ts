/** What is written on containers that cedana has made: those it may remove, and none else. */
import type { Target } from '../contract/job.js'

/** The target that the container was made for; before that is there, BEGUN. */
export const MADE_FOR = 'cedana/made-for'
export const BEGUN = 'begun'
/** On a writable layer: the one that a restore has put it in the place of, which by this is not collected. */
export const replacedIn = (snapshotter: string): string => `containerd.io/gc.ref.snapshot.${snapshotter}`
export const nameOf = ({ pid, startTicks }: Pick<Target, 'pid' | 'startTicks'>): string => `${pid}-${startTicks}`

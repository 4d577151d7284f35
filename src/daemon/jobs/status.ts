/** The word that `ps` shows for a job: its record against what /proc says. Pure. */
import { STATE_WORDS } from '../../plugins/contract/job.js'
import type { JobBrief } from './job.js'

/** What is needed of a process that exists. */
export interface LiveProcess {
  readonly startTicks: string
  /** Letter of /proc/PID/stat. */
  readonly state: string
}

export interface JobStatus {
  readonly word: string
  /** It can be signalled, dumped and frozen, and must not be deleted or restored. */
  readonly isRunning: boolean
  readonly isFrozen: boolean
}

/** `process`: what has the job's PID now, if anything. */
export function statusOf(
  job: JobBrief,
  process: LiveProcess | undefined,
  here: { readonly hostId: string; readonly bootId: string },
): JobStatus {
  const not = (word: string): JobStatus => ({ word, isRunning: false, isFrozen: false })
  if (job.hostId !== '' && job.hostId !== here.hostId) return not('remote')
  if (job.state === 'starting' || job.state === 'restoring') return not(job.state)
  // A PID is used again, after a while or after a boot: then it is somebody else's.
  const isTheSame = process !== undefined && process.startTicks === job.startTicks && job.bootId === here.bootId
  if (job.state === 'ended' || !isTheSame) return not('halted')
  const word = STATE_WORDS[process.state]
  if (word === undefined) return not('halted')
  if (process.state === 'Z') return not(word)
  return { word, isRunning: true, isFrozen: job.frozen }
}

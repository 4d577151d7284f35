import { DEFAULT_DETACH_KEYS, parseDetachKeys } from '../attach/detach-keys.js'
import type { CliCommand } from '../command.js'
import { usageError } from '../exit-codes.js'
import { jobArgument, jobOf, latestFlag, type LatestFlag } from '../latest.js'
import type { Session } from '../session.js'
import { nonEmpty } from '../shared-flags.js'

interface AttachFlags extends LatestFlag {
  readonly detachKeys?: string
}

const DETACH_KEYS = ['--detach-keys <KEYS>', `keys that detach from a job with a terminal (default: ${DEFAULT_DETACH_KEYS})`] as const

const ENDING =
  'Ends with the exit code of the job (128 + N when signal N ended it). Ctrl-C detaches, and the job goes on; of a job with a terminal Ctrl-C is ' +
  'its own, and ctrl-p ctrl-q detaches. After a detach the exit code is 130, after a dump of the job 75, and 141 when the ' +
  'reader of the output goes away.'

async function attachTo(session: Session, target: { readonly jid: string; readonly pid: number }, flags: AttachFlags): Promise<number> {
  const detachKeys = parseDetachKeys(flags.detachKeys ?? DEFAULT_DETACH_KEYS)
  if (detachKeys === undefined) throw usageError(`invalid detach keys ${flags.detachKeys}: write them as ${DEFAULT_DETACH_KEYS}`)
  const { attach } = await import('../attach/attach.js')
  return session.ask((engine) => attach(session, engine, { ...target, detachKeys }))
}

export function attach(command: CliCommand): void {
  latestFlag(command.argument('[PID]', 'PID, or id, of a job', nonEmpty), 'the job that was made last')
    .option(...DETACH_KEYS)
    .note(ENDING)
    .example('cedana attach 4711')
    .does<AttachFlags>(async (session, flags, [name]) => {
      const target = await jobOf(session, name, flags)
      const isPid = /^\d+$/.test(target) && Number(target) > 0 && Number(target) <= 0x7fffffff
      return attachTo(session, isPid ? { jid: '', pid: Number(target) } : { jid: target, pid: 0 }, flags)
    })
}

export function attachJob(command: CliCommand): void {
  jobArgument(command)
    .option(...DETACH_KEYS)
    .note(ENDING)
    .example('cedana job attach train')
    .does<AttachFlags>(async (session, flags, [name]) => attachTo(session, { jid: await jobOf(session, name, flags), pid: 0 }, flags))
}

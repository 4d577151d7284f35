/** Jobs and checkpoints as they are named on a command line: by id, or as the last there is. */
import type { CheckpointView, JobView } from '../daemon/api/engine.js'
import { CedanaError } from '../plugins/contract/errors.js'
import type { CliCommand } from './command.js'
import { usageError } from './exit-codes.js'
import type { Session, Where } from './session.js'
import { checkpointName, nonEmpty } from './shared-flags.js'

export interface LatestFlag {
  readonly latest?: boolean
}

export const latestFlag = (command: CliCommand, what: string): CliCommand => command.option('-l, --latest', what)

/** Of a command about one job. */
export const jobArgument = (command: CliCommand): CliCommand =>
  latestFlag(command.argument('[JID]', 'job id, or the beginning of one that was made up', nonEmpty), 'the job that was made last')

/** Of a command about one checkpoint. */
export const checkpointArgument = (command: CliCommand): CliCommand =>
  latestFlag(command.argument('[CHECKPOINT]', 'checkpoint id, the beginning of one, or a path'), 'the checkpoint that was made last')

export const latestJob = (jobs: readonly JobView[]): JobView[] => jobs.toSorted((a, b) => b.createdAt - a.createdAt).slice(0, 1)
export const latestCheckpoint = (checkpoints: readonly CheckpointView[]): CheckpointView[] =>
  checkpoints.toSorted((a, b) => b.time - a.time).slice(0, 1)

async function named(
  kind: 'JID' | 'CHECKPOINT',
  name: string | undefined,
  { latest }: LatestFlag,
  find: () => Promise<string | undefined>,
) {
  if (latest !== true) {
    if (name === undefined) throw usageError(`missing argument '${kind}'`, 'or say --latest')
    return name
  }
  if (name !== undefined) throw usageError(`--latest says which one: leave ${name} out`)
  const found = await find()
  if (found !== undefined) return found
  throw kind === 'JID'
    ? new CedanaError('NO_SUCH_JOB', 'there are no jobs')
    : new CedanaError('NO_SUCH_CHECKPOINT', 'there are no checkpoints')
}

export const jobOf = (session: Session, name: string | undefined, flags: LatestFlag, where?: Where): Promise<string> =>
  named('JID', name, flags, async () => {
    const all = { allHosts: false, jids: [], brief: false }
    return latestJob(await session.ask((engine) => engine.listJobs(all, { signal: session.signal }), where))[0]?.jid
  })

export const checkpointOf = async (session: Session, name: string | undefined, flags: LatestFlag): Promise<string> =>
  checkpointName(
    session.world,
    await named('CHECKPOINT', name, flags, async () => {
      return latestCheckpoint(await session.ask((engine) => engine.listCheckpoints('', { signal: session.signal })))[0]?.id
    }),
  )

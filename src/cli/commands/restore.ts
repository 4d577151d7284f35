import { InvalidArgumentError, Option } from 'commander'
import type { RestoreRequest, RestoreResult } from '../../daemon/api/engine.js'
import type { CliCommand } from '../command.js'
import { jobOf, type LatestFlag } from '../latest.js'
import { printPlan } from '../plan.js'
import { ProgressLine } from '../render/progress.js'
import { statistics } from '../render/statistics.js'
import type { Session } from '../session.js'
import {
  absolute,
  criuFlags,
  criuSwitches,
  outputFlags,
  stdioFlags,
  stdioOf,
  windowSize,
  type CriuFlags,
  type StdioFlags,
} from '../shared-flags.js'
import { RESTORE, RESTORE_TYPE, spell } from '../spellings.js'
import { start } from '../start.js'
import { jobCommand, typeCommands } from '../targets.js'

interface RestoreFlags extends CriuFlags, StdioFlags {
  readonly path?: string
  readonly tcpClose?: boolean
  readonly leaveStopped?: boolean
  readonly gpus?: readonly number[]
  readonly server?: boolean
}

function gpuNumbers(text: string): readonly number[] {
  if (!/^\d+(,\d+)*$/.test(text)) throw new InvalidArgumentError('They are not numbers of GPUs such as 0,1.')
  return text.split(',').map(Number)
}

function restoreFlags(command: CliCommand): void {
  command
    .option('-p, --path <PATH>', 'checkpoint: directory, archive or SCHEME://… (of a job: its latest)')
    .tristate('tcp-close', 'come back with TCP connections closed')
    .tristate('leave-stopped', 'leave it stopped (SIGCONT lets it go on)')
    .addOption(new Option('--gpus <N,…>', 'GPUs of this machine, in the order of those of the checkpoint').argParser(gpuNumbers))
  criuFlags(stdioFlags(command))
  spell(outputFlags(command, { short: false }), RESTORE)
}

const request = (session: Session, flags: RestoreFlags, chosen: Pick<RestoreRequest, 'jid' | 'type' | 'options'>): RestoreRequest => ({
  ...chosen,
  ...criuSwitches(flags),
  path: absolute(session.world, flags.path),
  stdio: stdioOf(flags),
  waitAttach: flags.attach ?? false,
  log: absolute(session.world, flags.out),
  pidFile: absolute(session.world, flags.pidFile),
  tcpClose: flags.tcpClose,
  leaveStopped: flags.leaveStopped,
  gpus: flags.gpus ?? [],
  dryRun: flags.dryRun ?? false,
  timeoutMs: flags.timeout ?? 0,
  windowSize: windowSize(session.world),
  withState: session.isStructured,
})

async function carryOut(
  session: Session,
  flags: RestoreFlags,
  chosen: Pick<RestoreRequest, 'jid' | 'type' | 'options'>,
): Promise<number | void> {
  const progress = new ProgressLine(session.world.stderr, session.debug)
  const asked = { signal: session.signal, onProgress: progress.update }
  const restore = request(session, flags, chosen)
  const where = { local: flags.server === false, withJobs: chosen.jid !== '' }
  if (restore.dryRun) return printPlan(session, await session.ask((engine) => engine.restore(restore, asked), where))
  return start(session, 'restore', flags, {
    where,
    start: (engine): Promise<RestoreResult> => engine.restore(restore, asked).finally(() => progress.end()),
    line: ({ pid }) => `Restored successfully, PID: ${pid}`,
    statistics: flags.printStats === true ? (one) => statistics('restore', { id: one.jid || String(one.pid), ...one }) : undefined,
  })
}

export async function restore(command: CliCommand): Promise<void> {
  restoreFlags(command)
  const job = await jobCommand(command, 'restore', 'restore', 'restore a job')
  job.command
    .example('cedana restore job train', 'cedana restore job --attach train', 'cedana restore job --path /backup/train.tar.zst train')
    .does<RestoreFlags & LatestFlag>(async (session, flags, args) => {
      const jid = await jobOf(session, args[0], flags, { local: flags.server === false, withJobs: true })
      return carryOut(session, flags, { jid, type: '', options: job.read([], flags) })
    })
  for (const { command: sub, manifest, read } of await typeCommands(
    command,
    'restore',
    ['restore'],
    (name) => `restore a checkpoint of type ${name}`,
  )) {
    spell(sub, RESTORE_TYPE)
    sub.example(`cedana restore ${manifest.name} --path /tmp/dump-${manifest.name}-1`).does<RestoreFlags>((session, flags, args) => {
      return carryOut(session, flags, { jid: '', type: manifest.name, options: read.restore!(args, flags) })
    })
  }
}

import type { DumpRequest, DumpResult } from '../../daemon/api/engine.js'
import type { CliCommand } from '../command.js'
import { dumpFlags, type DumpFlags, placeOf } from '../dump-flags.js'
import { jobOf, type LatestFlag } from '../latest.js'
import { printPlan } from '../plan.js'
import { ProgressLine } from '../render/progress.js'
import { statistics } from '../render/statistics.js'
import { openResultFile } from '../result-file.js'
import type { Session } from '../session.js'
import { criuSwitches } from '../shared-flags.js'
import { DUMP_TYPE, spell } from '../spellings.js'
import { jobCommand, typeCommands } from '../targets.js'

type Chosen = Pick<DumpRequest, 'jid' | 'type' | 'target' | 'options'>

const request = (session: Session, flags: DumpFlags, chosen: Chosen): DumpRequest => ({
  ...chosen,
  ...criuSwitches(flags, { tcp_close: flags.tcpClose }),
  ...placeOf(session.world, flags),
  level: flags.level,
  streams: flags.streams ?? 0,
  keepLast: flags.keepLast,
  leaveRunning: flags.leaveRunning,
  skipInFlight: flags.skipInFlight,
  dryRun: flags.dryRun ?? false,
  timeoutMs: flags.timeout ?? 0,
  withState: flags.dryRun !== true && (session.isStructured || flags.resultFile !== undefined),
})

function printStatistics(session: Session, { jid }: Chosen, result: DumpResult): Promise<void> {
  for (const line of [...result.messages, ...result.paths.map((path) => `Dumped to ${path}`)]) session.note(line)
  return session.printDocument(statistics('checkpoint', { id: jid || result.checkpointId, ...result }), 'json')
}

async function printResult(session: Session, result: DumpResult): Promise<void> {
  await session.printProfile('dump', result.steps)
  if (session.isStructured) return session.printDocument(result, session.format!)
  if (session.options.quiet === true) return result.paths.forEach((path) => session.print(path))
  if (session.format === 'name') return session.print(result.checkpointId)
  result.messages.forEach((message) => session.print(message))
  result.paths.forEach((path) => session.print(`Dumped to ${path}`))
}

async function carryOut(session: Session, flags: DumpFlags, chosen: Chosen): Promise<number | void> {
  const progress = new ProgressLine(session.world.stderr, session.debug)
  const asked = { signal: session.signal, onProgress: progress.update }
  const where = { local: flags.server === false, withJobs: chosen.jid !== '' }
  const resultFile = flags.resultFile !== undefined && flags.dryRun !== true ? await openResultFile(session, flags.resultFile) : undefined
  const result = await session
    .ask((engine) => engine.dump(request(session, flags, chosen), asked), where)
    .catch(async (thrown: unknown) => {
      await resultFile?.discard()
      throw thrown
    })
    .finally(() => progress.end())
  if (flags.dryRun === true) return printPlan(session, result)
  // First of all where the checkpoint is: the target may be gone.
  await (flags.printStats === true ? printStatistics(session, chosen, result) : printResult(session, result))
  await resultFile?.write(`${JSON.stringify(result)}\n`)
}

export async function dump(command: CliCommand): Promise<void> {
  dumpFlags(command)
  const job = await jobCommand(command, 'dump', 'dump', 'dump a job')
  job.command
    .example('cedana dump job train', 'cedana dump job --leave-running --compression zstd train', 'cedana dump job --dry-run train')
    .does<DumpFlags & LatestFlag>(async (session, flags, args) => {
      const jid = await jobOf(session, args[0], flags, { local: flags.server === false, withJobs: true })
      return carryOut(session, flags, { jid, type: '', target: {}, options: job.read([], flags) })
    })
  for (const { command: sub, manifest, read, sample } of await typeCommands(
    command,
    'dump',
    ['resolve', 'dump'],
    (name) => `dump a target of type ${name}`,
  )) {
    spell(sub, DUMP_TYPE)
    sub.example(`cedana dump ${manifest.name} --dir /var/lib/checkpoints ${sample}`).does<DumpFlags>((session, flags, args) => {
      const chosen = { jid: '', type: manifest.name, target: read.resolve!(args, flags), options: read.dump!([], flags) }
      return carryOut(session, flags, chosen)
    })
  }
}

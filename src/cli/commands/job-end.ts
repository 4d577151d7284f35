import { constants } from 'node:os'
import { Option } from 'commander'
import type { CliCommand } from '../command.js'
import { CliError, usageError } from '../exit-codes.js'
import { jobOf, latestFlag, type LatestFlag } from '../latest.js'
import { confirm } from '../prompt.js'
import type { Session } from '../session.js'
import { duration } from '../shared-flags.js'
import { KILL, spell } from '../spellings.js'

interface Selection extends LatestFlag {
  readonly all?: boolean
  readonly yes?: boolean
  readonly force?: boolean
}

/** Number of `TERM`, `SIGTERM` or `15`. */
function signalNumber(text: string): number {
  const name = text.toUpperCase()
  const byName = new Map(Object.entries(constants.signals)).get(name.startsWith('SIG') ? name : `SIG${name}`)
  const number = byName ?? (/^\d+$/.test(text) ? Number(text) : 0)
  if (number < 1 || number > 64) throw usageError(`unknown signal ${text}`)
  return number
}

/** Undefined: the answer was no. Job ids together with --all: only these. */
async function selected(session: Session, verb: string, missing: string, names: readonly string[], flags: Selection) {
  const { all, yes, force, latest } = flags
  const jids = latest === true ? [await jobOf(session, names[0], flags)] : names
  if (jids.length > 0) return { jids, all: false }
  if (all !== true) throw new CliError(missing)
  const isSure = yes === true || force === true || (await confirm(session, `Are you sure you want to ${verb} all jobs? [y/n]: `))
  return isSure ? { jids: [], all: true } : undefined
}

const selection = (command: CliCommand, verb: string): CliCommand =>
  latestFlag(command, 'the job that was made last')
    .argument('[JID...]', 'job ids, or beginnings of those that were made up')
    .option('-a, --all', `${verb} all jobs`)
    .option('-y, --yes', 'do not ask')
    .addOption(new Option('-f, --force', 'same as --yes').hideHelp())

interface KillFlags extends Selection {
  readonly signal?: string
  readonly grace?: number
}

export function kill(command: CliCommand): void {
  const flags = selection(command, 'kill')
    .option('-s, --signal <SIGNAL>', 'name or number (default: KILL, or what the runtime says; with --grace TERM)')
    .addOption(new Option('-t, --grace <DURATION>', 'wait this long for the end, then kill').argParser(duration))
  spell(flags, KILL)
    .example('cedana kill train', 'cedana kill --grace 10s train', 'cedana kill --signal INT train', 'cedana kill --all --yes')
    .does<KillFlags>(async (session, flags, args) => {
      // Who grants time asks first.
      const number = flags.signal === undefined ? (flags.grace ? constants.signals.SIGTERM : 0) : signalNumber(flags.signal)
      const which = await selected(session, 'kill', 'Please provide at least one JID or use the --all flag', args, flags)
      if (which === undefined) return
      const request = { ...which, signal: number, graceMs: flags.grace ?? 0 }
      const messages = await session.ask((engine) => engine.killJobs(request, { signal: session.signal }))
      messages.forEach((message) => session.print(message))
    })
}

export function remove(command: CliCommand): void {
  selection(command, 'delete')
    .example('cedana delete train', 'cedana delete --all --yes')
    .does<Selection>(async (session, flags, args) => {
      const which = await selected(session, 'delete', 'Please provide a job ID or use the --all flag', args, flags)
      if (which === undefined) return
      const messages = await session.ask((engine) => engine.deleteJobs(which, { signal: session.signal }))
      messages.forEach((message) => session.print(message))
    })
}

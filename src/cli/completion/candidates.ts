/** What may come next on a command line: sub-commands, flags, values, ids that the daemon knows. */
import { constants } from 'node:os'
import type { Option } from 'commander'
import type { Engine } from '../../daemon/api/engine.js'
import type { CliCommand } from '../command.js'
import { collect, fieldsOf } from '../flags.js'

interface Candidate {
  readonly text: string
  readonly description: string
}
interface Completion {
  readonly candidates: readonly Candidate[]
  /** Names of files fit too. */
  readonly files: boolean
}

/** Asked for ids only when ids are what fits. Fails when there is no daemon. */
type AskEngine = <T>(question: (engine: Engine) => Promise<T>) => Promise<T>

const NOTHING: Completion = { candidates: [], files: false }
/** A shell that waits longer is a nuisance. */
const LIMIT = { timeoutMs: 300 }
const SIGNALS = Object.keys(constants.signals).map((name) => ({ text: name.replace(/^SIG/, ''), description: '' }))
const FILES: Completion = { candidates: [], files: true }

async function ids(kind: string, ask: AskEngine): Promise<Completion> {
  if (kind === 'JID') {
    const jobs = await ask((engine) => engine.listJobs({ allHosts: false, jids: [], brief: true }, LIMIT))
    return { candidates: jobs.map(({ jid, type, status }) => ({ text: jid, description: `${type}, ${status}` })), files: false }
  }
  if (kind === 'PID') {
    const jobs = await ask((engine) => engine.listJobs({ allHosts: false, jids: [], brief: true }, LIMIT))
    const running = jobs.filter(({ isRunning }) => isRunning)
    return { candidates: running.map(({ jid, pid }) => ({ text: String(pid), description: jid })), files: false }
  }
  const checkpoints = await ask((engine) => engine.listCheckpoints('', LIMIT))
  return { candidates: checkpoints.map(({ id, jid }) => ({ text: id, description: jid })), files: true }
}

/** What the runtime of this command has, where the flags before say that it is, or the environment does. */
async function targets(command: CliCommand, flags: Readonly<Record<string, string>>, ask: AskEngine): Promise<Completion> {
  const { app } = command
  const runtime = (await app.plugins()).find(({ name, verbs }) => name === command.name() && verbs.query !== undefined)
  if (runtime === undefined) return NOTHING
  const fields = (await fieldsOf(runtime.options['query'])).filter(({ property }) => property.positional !== true)
  const request = { type: runtime.name, options: collect(fields, [], flags, app.world.env) }
  const { columns, rows } = await ask((engine) => engine.query(request, LIMIT))
  const [id = '', ...others] = columns
  const about = (cells: Readonly<Record<string, string>>): string => others.flatMap((column) => cells[column] || []).join(', ')
  return { candidates: rows.map(({ cells }) => ({ text: cells[id] ?? '', description: about(cells) })), files: false }
}

/** What fits in a place called `kind`: FILE, DIR, PATH, JID, CHECKPOINT … */
async function values(kind: string, choices: readonly string[] | undefined, ask: AskEngine): Promise<Completion> {
  if (choices !== undefined) return { candidates: choices.map((text) => ({ text, description: '' })), files: false }
  if (/^(FILE|DIR|PATH|BUNDLE|ARG)$/.test(kind)) return FILES
  if (kind === 'SIGNAL') return { candidates: SIGNALS, files: false }
  return /^(JID|PID|CHECKPOINT)$/.test(kind) ? ids(kind, ask).catch(() => NOTHING) : NOTHING
}

const optionValues = (option: Option, ask: AskEngine): Promise<Completion> =>
  values(/<([^>]+)>/.exec(option.flags)?.[1] ?? '', option.argChoices, ask)

function flags(command: CliCommand): Candidate[] {
  return command
    .createHelp()
    .visibleOptions(command)
    .flatMap(({ long, description }) => (long ? [{ text: long, description }] : []))
}

/** The word before is a flag that wants a value. */
const awaiting = (command: CliCommand, word: string | undefined): Option | undefined =>
  command.options.find((option) => option.required && (option.long === word || option.short === word))

/** bash makes three words of `--output=json`, the last two of which come as they are typed; the others one. */
const split = (words: readonly string[]): string[] =>
  words.flatMap((word, index) => {
    const [, flag, value] = /^(--[a-z-]+)=(.*)$/s.exec(word) ?? []
    if (flag !== undefined && value !== undefined) return [flag, value]
    return word !== '=' || !words[index - 1]?.startsWith('--') ? [word] : index === words.length - 1 ? [''] : []
  })

/** `line`: all after `cedana`; the last is the one being typed. */
export async function complete(root: CliCommand, line: readonly string[], ask: AskEngine): Promise<Completion> {
  const words = split(line)
  const typed = words.at(-1) ?? ''
  let command = root
  let positional = 0
  let pending: Option | undefined
  const given: Record<string, string> = {}
  for (const word of words.slice(0, -1)) {
    if (word === '--') return FILES
    if (pending !== undefined) {
      given[pending.attributeName()] = word
      pending = undefined
    } else if (word.startsWith('-')) pending = awaiting(command, word)
    else {
      const next = command.commands.find((one) => one.name() === word || one.aliases().includes(word))
      if (next === undefined) positional++
      else command = next as CliCommand
    }
  }
  if (pending !== undefined) {
    const { candidates, files } = await optionValues(pending, ask)
    const [lead = ''] = /^--[a-z-]+=/.exec(line.at(-1) ?? '') ?? []
    return { candidates: candidates.map((one) => ({ ...one, text: lead + one.text })), files }
  }
  if (typed.startsWith('-')) return { candidates: flags(command), files: false }
  if (command.commands.length > 0) {
    return { candidates: command.visibleCommands().map((one) => ({ text: one.name(), description: one.description() })), files: false }
  }
  const places = command.registeredArguments
  const place = places[positional] ?? (places.at(-1)?.variadic === true ? places.at(-1) : undefined)
  if (place?.name() === 'ID') return targets(command, given, ask).catch(() => NOTHING)
  return place === undefined ? NOTHING : values(place.name(), place.argChoices, ask)
}

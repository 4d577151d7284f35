/** Flags that several commands have, and what they mean. */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { InvalidArgumentError, Option } from 'commander'
import type { CriuSwitches, WindowSize } from '../daemon/api/engine.js'
import type { StdioMode } from '../plugins/contract/job.js'
import type { CliCommand } from './command.js'
import { parseDuration } from './render/units.js'
import { OUTPUT_FORMATS, type World } from './session.js'
import { LIST, spell } from './spellings.js'

const repeated = (value: string, previous: readonly string[] | undefined): readonly string[] => [
  ...(previous ?? []),
  ...value.split(',').filter(Boolean),
]

/** `--output`; with `-o` and `--format`, unless the command has another use for them. */
export function outputFlags(
  command: CliCommand,
  { short = true, list = false, alias = true }: { readonly short?: boolean; readonly list?: boolean; readonly alias?: boolean } = {},
): CliCommand {
  command.choice(`${short ? '-o, ' : ''}--output <FORMAT>`, 'form of the output', OUTPUT_FORMATS)
  if (alias) command.addOption(new Option('--format <FORMAT>', 'same as --output').choices(OUTPUT_FORMATS).hideHelp())
  command.option('-q, --quiet', list ? 'print ids only' : 'print only what identifies the result')
  if (list)
    command
      .option('--no-headers', 'leave the header and the hints out')
      .option('--no-trunc', 'do not cut lines to the width of the terminal')
  return command
}

/** Of commands that print rows; `order`: in which, when nobody says. */
export const listFlags = (command: CliCommand, order = 'newest first'): CliCommand =>
  spell(
    outputFlags(command, { list: true })
      .option('--filter <COLUMN=VALUE>', 'only rows with this value in a column (repeatable, comma-separated)', repeated)
      .option('--sort <COLUMN>', `order of the rows, -COLUMN for the reverse (default: ${order})`),
    LIST,
  )

/** `cedana dump job "$JOB"`, where the variable is not set, names nothing. */
export function nonEmpty(value: string): string {
  if (value === '') throw new InvalidArgumentError('It is empty.')
  return value
}

const INT32 = 2 ** 31 - 1

/** As the API can carry it. */
export function integer(value: string): number {
  if (!/^-?\d+$/.test(value)) throw new InvalidArgumentError('It is not a whole number.')
  if (Math.abs(Number(value)) > INT32) throw new InvalidArgumentError('It is too large.')
  return Number(value)
}

/** Timers of Node.js that are longer than 24 days ring at once. */
const LONGEST_MS = 480 * 3_600_000

export function duration(value: string): number {
  const ms = parseDuration(value)
  if (ms === undefined) throw new InvalidArgumentError('It is not a duration such as 30s or 5m.')
  if (ms > LONGEST_MS) throw new InvalidArgumentError('It is too long: at most 480h.')
  return ms
}

export interface CriuFlags {
  readonly tcpEstablished?: boolean
  readonly fileLocks?: boolean
  readonly shellJob?: boolean
  readonly linkRemap?: boolean
  readonly external?: readonly string[]
  readonly extUnixSk?: boolean
  readonly manageCgroupsMode?: string
  readonly criuOpts?: string
  readonly dryRun?: boolean
  readonly printStats?: boolean
  readonly timeout?: number
  readonly server?: boolean
}

const CGROUP_MODES = ['ignore', 'none', 'props', 'soft', 'full', 'strict', 'default']

/** What dump and restore share. */
export function criuFlags(command: CliCommand): CliCommand {
  command.tristate('tcp-established', 'keep established TCP connections; not said: when there are some')
  command.tristate('file-locks', 'keep file locks')
  command.tristate('shell-job', 'the root process is not the leader of its session; not said: by looking', '-j')
  command.tristate('link-remap', 'make temporary links for files that have been deleted but are open')
  command.addOption(new Option('--external <KEY>', 'resource that stays outside of the checkpoint (repeatable)').argParser(repeated))
  command.option('--ext-unix-sk', 'unix sockets whose other end is outside; not said: when there are some')
  command.choice(
    '--manage-cgroups-mode <MODE>',
    'how CRIU treats cgroups (default: what the runtime says, or criu.manage_cgroups)',
    CGROUP_MODES,
  )
  command.option('--criu-opts <JSON>', 'object with options of CRIU, which win over all others')
  command.option('--dry-run', 'print the plan and what would fail, and change nothing')
  const stats = new Option('--print-stats', 'print what it took as JSON, with the keys of podman, and all else on standard error')
  command.addOption(stats.conflicts(['output', 'format', 'quiet', 'dryRun', 'attach', 'server']))
  command.addOption(new Option('--timeout <DURATION>', 'give up and undo after this long, such as 90s or 10m').argParser(duration))
  return command.option('--no-server', 'do it in this process, without the daemon')
}

/** Flags that are options of CRIU and nothing else. --criu-opts wins over them, too; of a text that is no object the daemon complains. */
function criuOpts({ extUnixSk, manageCgroupsMode, criuOpts: given = '' }: CriuFlags, more: object): string {
  const mode = manageCgroupsMode === 'none' ? 'CG_NONE' : manageCgroupsMode?.toUpperCase()
  const said = { ext_unix_sk: extUnixSk, ...(mode !== undefined && { manage_cgroups: true, manage_cgroups_mode: mode }), ...more }
  if (Object.values(said).every((value) => value === undefined)) return given
  try {
    const parsed: unknown = JSON.parse(given || '{}')
    return typeof parsed !== 'object' || Array.isArray(parsed) ? given : JSON.stringify({ ...said, ...parsed })
  } catch {
    return given
  }
}

/** `more`: options of CRIU that the command has a flag for. */
export const criuSwitches = (flags: CriuFlags, more: object = {}): CriuSwitches => ({
  tcpEstablished: flags.tcpEstablished,
  fileLocks: flags.fileLocks,
  shellJob: flags.shellJob,
  linkRemap: flags.linkRemap,
  external: flags.external ?? [],
  criuOpts: criuOpts(flags, more),
})

export interface StdioFlags {
  readonly attach?: boolean
  readonly attachable?: boolean
  readonly tty?: boolean
  readonly out?: string
  readonly pidFile?: string
  readonly server?: boolean
}

/** What run and restore share. */
export function stdioFlags(command: CliCommand): CliCommand {
  command.addOption(new Option('-a, --attach', 'connect to it at once; ends with its exit code').conflicts('out'))
  command.addOption(new Option('--attachable', 'keep its standard streams so that one can attach later').conflicts('out'))
  command.addOption(new Option('-t, --tty', 'give it a terminal (with --attach or --attachable)').conflicts('out'))
  command.option('-o, --out <FILE>', 'log for its standard output and error')
  command.option('--pid-file <FILE>', 'write its PID there')
  return command
}

/** Where the streams go; undefined: nothing was said. */
export function stdioOf(flags: StdioFlags): StdioMode | undefined {
  if (flags.server === false) return 'inherit'
  if (flags.tty === true) return 'tty'
  return flags.attach === true || flags.attachable === true ? 'pipe' : undefined
}

/** As the daemon, which has another working directory, can use it. A `scheme://` and an absolute path stay as they are. */
export const absolute = (world: World, path: string | undefined): string =>
  path === undefined || path === '' ? '' : path.startsWith('/') || /^[a-z][a-z0-9+.-]*:\/\//i.test(path) ? path : resolve(world.cwd, path)

/** A checkpoint as it was named: its id or the beginning of one stays, a path (or what is one here) is made absolute. */
export const checkpointName = (world: World, name: string): string =>
  /\/|^\.\.?$/.test(name) || existsSync(resolve(world.cwd, name)) ? absolute(world, name) : name

export function windowSize({ stdout }: World): WindowSize | undefined {
  return stdout.isTTY && stdout.rows > 0 ? { rows: stdout.rows, columns: stdout.columns } : undefined
}

/** Yellow: without a daemon the standard streams are the caller's own. */
export function ignoredStdio(flags: StdioFlags): string | undefined {
  const given = (['out', 'attach', 'attachable', 'tty'] as const).filter((name) => flags[name] !== undefined)
  if (flags.server !== false || given.length === 0) return undefined
  const names = given.map((name) => `--${name}`).join(', ')
  return `${names} ignored: with --no-server the standard output is copied to the caller`
}

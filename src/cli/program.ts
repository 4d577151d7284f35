/** The tree of commands. Only the branch that is run is built; without one, all are names and summaries for help. */
import { Option } from 'commander'
import { CliCommand, type App } from './command.js'
import { COLOUR_MODES } from './render/style.js'

type Define = (command: CliCommand) => void | Promise<void>
interface Entry {
  readonly name: string
  readonly aliases?: readonly string[]
  readonly summary: string
  readonly group: string
  readonly isHidden?: boolean
  /** Loads the file of the command and gives it its flags and sub-commands. */
  readonly load: () => Promise<Define>
}

const RUN = 'Run and manage:'
const CHECKPOINT = 'Checkpoint and restore:'
const INSPECT = 'Look:'
const SYSTEM = 'System:'

const ENTRIES: readonly Entry[] = [
  { name: 'run', group: RUN, summary: 'start a job', load: async () => (await import('./commands/run.js')).run },
  {
    name: 'exec',
    group: RUN,
    summary: 'start a process as a job (same as run process)',
    load: async () => (await import('./commands/run.js')).exec,
  },
  {
    name: 'manage',
    group: RUN,
    summary: 'take what is already running as a job',
    load: async () => (await import('./commands/manage.js')).manage,
  },
  {
    name: 'attach',
    group: RUN,
    summary: 'connect to the standard streams of a job, by PID',
    load: async () => (await import('./commands/attach.js')).attach,
  },
  { name: 'kill', group: RUN, summary: 'end jobs (same as job kill)', load: async () => (await import('./commands/job-end.js')).kill },
  {
    name: 'delete',
    aliases: ['rm'],
    group: RUN,
    summary: 'forget ended jobs (same as job delete)',
    load: async () => (await import('./commands/job-end.js')).remove,
  },
  {
    name: 'freeze',
    aliases: ['pause'],
    group: RUN,
    summary: 'stop the clock of a job, process or container',
    load: async () => (await import('./commands/freeze.js')).freeze,
  },
  {
    name: 'unfreeze',
    aliases: ['unpause', 'resume'],
    group: RUN,
    summary: 'let a frozen one go on',
    load: async () => (await import('./commands/freeze.js')).unfreeze,
  },

  { name: 'dump', group: CHECKPOINT, summary: 'make a checkpoint', load: async () => (await import('./commands/dump.js')).dump },
  {
    name: 'restore',
    group: CHECKPOINT,
    summary: 'bring a checkpoint back to life',
    load: async () => (await import('./commands/restore.js')).restore,
  },
  {
    name: 'checkpoint',
    group: CHECKPOINT,
    summary: 'list, inspect, verify, export and delete checkpoints',
    load: async () => (await import('./commands/checkpoint.js')).checkpoint,
  },
  {
    name: 'checkpoints',
    group: CHECKPOINT,
    summary: 'list checkpoints (same as checkpoint list)',
    load: async () => (await import('./commands/checkpoint.js')).checkpointList,
  },

  {
    name: 'ps',
    aliases: ['jobs', 'ls'],
    group: INSPECT,
    summary: 'list jobs (same as job list)',
    load: async () => (await import('./commands/job-list.js')).jobList,
  },
  { name: 'job', group: INSPECT, summary: 'everything about jobs', load: async () => (await import('./commands/job.js')).job },
  { name: 'logs', group: INSPECT, summary: 'show the output of a job', load: async () => (await import('./commands/logs.js')).logs },
  {
    name: 'query',
    group: INSPECT,
    summary: 'show processes or containers, managed or not',
    load: async () => (await import('./commands/query.js')).query,
  },

  {
    name: 'daemon',
    group: SYSTEM,
    summary: 'start, check or reload the daemon',
    load: async () => (await import('./commands/daemon.js')).daemon,
  },
  {
    name: 'check',
    group: SYSTEM,
    summary: 'check whether this host can checkpoint and restore',
    load: async () => (await import('./commands/check.js')).check,
  },
  {
    name: 'plugin',
    group: SYSTEM,
    summary: 'list, install and remove plugins, or write one',
    load: async () => (await import('./commands/plugin.js')).plugin,
  },
  {
    name: 'plugins',
    group: SYSTEM,
    summary: 'list plugins (same as plugin list)',
    load: async () => (await import('./commands/plugin-list.js')).pluginList,
  },
  {
    name: 'features',
    group: SYSTEM,
    summary: 'show what is supported for what (same as plugin features)',
    load: async () => (await import('./commands/features.js')).features,
  },
  { name: 'version', group: SYSTEM, summary: 'show versions', load: async () => (await import('./commands/version.js')).version },
  {
    name: 'completion',
    group: SYSTEM,
    summary: 'print a completion script for a shell',
    load: async () => (await import('./commands/completion.js')).completion,
  },
  { name: 'help', group: SYSTEM, summary: 'show help for a command', load: async () => (await import('./commands/help.js')).help },
  {
    name: 'docs-gen',
    group: SYSTEM,
    isHidden: true,
    summary: 'write the reference and man page',
    load: async () => (await import('./commands/docs-gen.js')).docsGen,
  },
  {
    name: '__complete',
    group: SYSTEM,
    isHidden: true,
    summary: 'complete a command line',
    load: async () => (await import('./commands/completion.js')).complete,
  },
]

const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'panic', 'disabled']

const counted = (_value: string, before: number | undefined): number => (before ?? 0) + 1

function globalOptions(program: CliCommand): void {
  program
    .option('--config <JSON>', 'settings for this call, merged over the configuration file')
    .option('--config-dir <DIR>', 'directory with config.json')
    .option('--init-config', 'write the configuration file from defaults and environment first')
    .option('--merge-config', 'the same, keeping what the file says')
    .option('--protocol <NAME>', 'how to reach the daemon: unix, tcp or vsock')
    .option('--address <ADDRESS>', 'where the daemon is: a path or HOST:PORT')
    .tristate('profiling', 'show what took how long')
    .option('--profiling-path <FILE>', 'write that to a file, as JSON')
    .choice('--log-level <LEVEL>', 'least severe message to log', LOG_LEVELS)
    .addOption(new Option('-v, --verbose', 'same as --log-level debug; given twice: trace').preset('').argParser(counted))
    .choice('--color <WHEN>', 'colours: auto (on terminals), always or never', COLOUR_MODES)
}

/** The first word of the command line that is neither a global flag nor the value of one. */
function branchOf(program: CliCommand, argv: readonly string[]): string | undefined {
  for (let index = 0; index < argv.length; index++) {
    const arg = argv[index]!
    if (!arg.startsWith('-')) return arg
    if (program.options.some((option) => option.required && option.long === arg)) index++
  }
  return undefined
}

/** `argv`: builds what this command line needs; undefined: everything. */
export async function buildProgram(app: App, argv: readonly string[] | undefined, version: string): Promise<CliCommand> {
  const program = new CliCommand('cedana', app).description('Checkpoint and restore of running processes and containers, as managed jobs.')
  globalOptions(program)
  program.example('cedana exec --jid train -- python3 train.py', 'cedana dump job train', 'cedana restore job train', 'cedana ps')

  const branch = argv === undefined ? undefined : branchOf(program, argv)
  const isMeant = ({ name, aliases = [] }: Entry): boolean => branch !== undefined && [name, ...aliases].includes(branch)
  const meant = ENTRIES.find(isMeant)
  for (const { name, aliases = [], summary, group, isHidden, load } of meant === undefined ? ENTRIES : [meant]) {
    const command = program.add(name, summary, { isHidden })
    command.helpGroup(group)
    command.aliases(aliases)
    if (argv === undefined || meant !== undefined) await (await load())(command)
  }
  // After the sub-commands, which take every flag there is so far.
  program.usage('[global options] COMMAND').version(`cedana version ${version}`, '--version', 'show the version')
  if (argv !== undefined && branch === undefined) {
    program.does(async () => program.outputHelp())
  }
  return program
}

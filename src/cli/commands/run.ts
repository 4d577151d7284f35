import type { RunRequest } from '../../daemon/api/engine.js'
import type { CliCommand } from '../command.js'
import { findExecutable } from '../executable.js'
import { fieldsOf, type Options, sampleArguments } from '../flags.js'
import type { Session } from '../session.js'
import { absolute, outputFlags, stdioFlags, stdioOf, windowSize, type StdioFlags } from '../shared-flags.js'
import { RUN, RUN_TYPE, spell } from '../spellings.js'
import { start } from '../start.js'
import { executableField, typeCommand, typeCommands, type TypeCommand } from '../targets.js'

interface RunFlags extends StdioFlags {
  readonly jid?: string
  readonly gpuEnabled?: boolean
  readonly asRoot?: boolean
}

function runFlags(command: CliCommand): CliCommand {
  command.option('-j, --jid <JID>', 'job id (default: a random one)').option('-g, --gpu-enabled', 'with GPU support')
  stdioFlags(command).option('--no-server', 'run it in this process, without the daemon and without a job')
  return spell(outputFlags(command, { short: false }), RUN)
}

function environment(session: Session): Record<string, string> {
  const variables = Object.entries(session.world.env).filter((entry): entry is [string, string] => entry[1] !== undefined)
  const isExact = ([name, value]: [string, string]): boolean => session.world.isExact(`${name}=${value}`)
  for (const [name] of variables.filter((one) => !isExact(one))) {
    session.note(`Note: environment variable ${name} is not valid UTF-8 and is not passed on`)
  }
  return Object.fromEntries(variables.filter(isExact))
}

function request(session: Session, flags: RunFlags, chosen: Pick<RunRequest, 'type' | 'options'>): RunRequest {
  const { world } = session
  return {
    ...chosen,
    jid: flags.jid ?? '',
    environment: environment(session),
    workingDirectory: world.cwd,
    stdio: stdioOf(flags) ?? 'log',
    waitAttach: flags.attach ?? false,
    log: absolute(world, flags.out),
    pidFile: absolute(world, flags.pidFile),
    asRoot: flags.asRoot ?? false,
    gpuEnabled: flags.gpuEnabled ?? false,
    windowSize: windowSize(world),
  }
}

async function runType({ command, manifest, read }: TypeCommand): Promise<void> {
  spell(command, RUN_TYPE)
  const program = await executableField(manifest.options.run)
  if (program !== undefined) {
    command.option('--as-root', 'as root instead of as you')
    command.unknownOptionHint = () => `options of the program come after --: ${command.path()} -- sh -c …`
  }
  command.does<RunFlags>(async (session, flags, args) => {
    const given = read.run!(args, flags)
    const options = program === undefined ? given : { ...given, [program]: await findExecutable(String(given[program]), session.world) }
    return start(session, 'run', flags, {
      where: { local: flags.server === false },
      start: (engine) => engine.run(request(session, flags, { type: manifest.name, options }), { signal: session.signal }),
      line: ({ pid }) => `Running managed ${manifest.name} PID ${pid}`,
    })
  })
}

async function sampleOf(options: Options | undefined): Promise<string> {
  if ((await executableField(options)) !== undefined) return '--jid train -- python3 train.py'
  return ['--jid web', ...sampleArguments(await fieldsOf(options))].join(' ')
}

export async function run(command: CliCommand): Promise<void> {
  runFlags(command)
  for (const one of await typeCommands(command, 'run', ['run'], (name) => `start a job of type ${name}`)) {
    await runType(one)
    one.command.example(`cedana run ${one.manifest.name} ${await sampleOf(one.manifest.options.run)}`)
  }
}

/** `exec`: `run process` by a shorter name. */
export async function exec(command: CliCommand): Promise<void> {
  runFlags(command).example(
    'cedana exec --jid train -- python3 train.py',
    'cedana exec --attach -- sh -c "date; sleep 60"',
    'cedana exec --no-server ./program',
  )
  await runType(await typeCommand(command, 'process', ['run']))
}

import { Option } from 'commander'
import type { CliCommand } from '../command.js'
import { absolute, duration, outputFlags } from '../shared-flags.js'
import { RUN, spell } from '../spellings.js'
import { hintAtOthers, typeCommands } from '../targets.js'
import { printStarted } from '../started.js'

interface ManageFlags {
  readonly jid?: string
  readonly pidFile?: string
  readonly gpuEnabled?: boolean
  readonly upcoming?: boolean
  readonly timeout?: number
}

export async function manage(command: CliCommand): Promise<void> {
  outputFlags(command)
    .option('-j, --jid <JID>', 'job id (default: a random one)')
    .option('--pid-file <FILE>', 'write its PID there')
    .option('-g, --gpu-enabled', 'with GPU support')
    .option('--upcoming', 'wait for it when it is not there yet')
    .addOption(new Option('--timeout <DURATION>', 'wait at most this long, such as 90s').argParser(duration))
  spell(command, RUN)
  for (const one of await typeCommands(command, 'resolve', ['resolve'], (name) => `manage a target of type ${name}`)) {
    const { command: sub, manifest, read, sample } = one
    await hintAtOthers(one, ['run', 'dump', 'restore'])
    sub.example(`cedana manage ${manifest.name} --jid train ${sample}`)
    if (manifest.verbs.upcoming !== undefined) sub.example(`cedana manage ${manifest.name} --upcoming --timeout 5m ${sample}`)
    sub.does<ManageFlags>(async (session, flags, args) => {
      const { world, signal } = session
      const started = await session.ask((engine) =>
        engine.manage(
          {
            jid: flags.jid ?? '',
            type: manifest.name,
            options: read.resolve!(args, flags),
            upcoming: flags.upcoming ?? false,
            pidFile: absolute(world, flags.pidFile),
            gpuEnabled: flags.gpuEnabled ?? false,
            timeoutMs: flags.timeout ?? 0,
          },
          { signal },
        ),
      )
      await printStarted(session, 'manage', started, `Managing ${manifest.name} PID ${started.pid}`)
    })
  }
}

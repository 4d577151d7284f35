import type { CliCommand } from '../command.js'
import { CliError } from '../exit-codes.js'
import { daemonCheck } from './check.js'

export function daemon(command: CliCommand): void {
  command
    .add('start', 'run the daemon in the foreground, until SIGTERM')
    .option('--db <FILE>', 'SQLite file with jobs and checkpoints (default: db.path)')
    .note('SIGHUP makes it read its configuration again and load the plugins that are there by then; most keys wait for its next start.')
    .example('cedana daemon start', 'cedana daemon start --init-config', 'cedana --address 127.0.0.1:8080 --protocol tcp daemon start')
    .does(async (session) => {
      const { world } = session
      const config = await session.loadConfig()
      if (world.caller.uid !== 0) throw new CliError('daemon must be run as root')
      await world.startDaemon(config, () => session.readConfig())
    })
  daemonCheck(command.add('check', 'check the daemon and its host'))
}

import type { CliCommand } from '../command.js'
import { CliError } from '../exit-codes.js'
import { daemonCheck } from './check.js'

export function daemon(command: CliCommand): void {
  command
    .add('start', 'run the daemon in the foreground, until SIGTERM')
    .option('--db <FILE>', 'SQLite file with jobs and checkpoints (default: db.path)')
    .example('cedana daemon start', 'cedana daemon start --init-config', 'cedana --address 127.0.0.1:8080 --protocol tcp daemon start')
    .does(async (session) => {
      const { world } = session
      const config = await session.loadConfig()
      if (world.caller.uid !== 0) throw new CliError('daemon must be run as root')
      await world.startDaemon(config)
    })
  daemonCheck(command.add('check', 'check the daemon and its host'))
}

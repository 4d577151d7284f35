import type { CliCommand } from '../command.js'
import { CliError } from '../exit-codes.js'
import { outputFlags } from '../shared-flags.js'
import { daemonCheck } from './check.js'
import { reportLoaded } from './plugin-install.js'

export function daemon(command: CliCommand): void {
  command
    .add('start', 'run the daemon in the foreground, until SIGTERM')
    .option('--db <FILE>', 'SQLite file with jobs and checkpoints (default: db.path)')
    .note('SIGHUP makes it read its configuration again, as cedana daemon reload does.')
    .example('cedana daemon start', 'cedana daemon start --init-config', 'cedana --address 127.0.0.1:8080 --protocol tcp daemon start')
    .does(async (session) => {
      const { world } = session
      const config = await session.loadConfig()
      if (world.caller.uid !== 0) throw new CliError('daemon must be run as root')
      await world.startDaemon(config, () => session.readConfig())
    })
  outputFlags(command.add('reload', 'have the daemon read its configuration again'))
    .note(
      'It also loads the plugins that are there by then. Jobs and running operations go on. What is about checkpoints, the level of the log and ' +
        'what becomes of jobs when it stops changes at once; other keys wait for its next start, and are named.',
    )
    .example('cedana daemon reload', 'cedana daemon reload -o json')
    .does(async (session) => {
      const result = await session.ask((engine) => engine.reload({ signal: session.signal }))
      if (session.isStructured) return session.printDocument(result, session.format!)
      const { changed, atNextStart, plugins } = result
      if (session.options.quiet === true) return changed.forEach((name) => session.print(name))
      session.print(changed.length > 0 ? `Changed: ${changed.join(', ')}` : 'Nothing has changed')
      if (atNextStart.length > 0) session.print(session.style('yellow', `At the next start of the daemon: ${atNextStart.join(', ')}`))
      reportLoaded(session, plugins)
    })
  daemonCheck(command.add('check', 'check the daemon and its host'))
}

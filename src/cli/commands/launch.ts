import type { CliCommand } from '../command.js'

/** For shims alone: see `Program.launch` of the plugin contract. */
export function launch(command: CliCommand): void {
  command.argument('<TYPE>', 'runtime').argument('<FILE>', 'what to do')
  command.does(async (session, _flags, [type = '', file = '']) => session.world.launch(await session.loadConfig(), type, file))
}

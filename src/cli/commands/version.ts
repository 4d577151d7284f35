import type { CliCommand } from '../command.js'
import { outputFlags } from '../shared-flags.js'

export function version(command: CliCommand): void {
  outputFlags(command)
    .example('cedana version', 'cedana version -o json')
    .does(async (session) => {
      const client = session.world.version
      if (session.format === undefined || session.options.quiet === true) return session.print(client)
      // A daemon is no need for this: what it says is left out when there is none.
      const server = await session.ask((engine) => engine.version({ signal: session.signal, timeoutMs: 2000 })).catch(() => undefined)
      if (session.isStructured) return session.printDocument({ client: { version: client, node: process.version }, server }, session.format)
      session.print(
        `client ${client}\n${server === undefined ? 'no daemon' : `daemon ${server.version}, CRIU ${server.criu}, kernel ${server.kernel}`}`,
      )
    })
}

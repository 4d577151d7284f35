import type { CliCommand } from '../command.js'
import { outputFlags } from '../shared-flags.js'

/** The package of api/cedana.proto, which this client speaks. */
const API = 'cedana.v1'

export function version(command: CliCommand): void {
  outputFlags(command)
    .example('cedana version', 'cedana version -o json')
    .does(async (session) => {
      const client = session.world.version
      if (session.format === undefined || session.options.quiet === true) return session.print(client)
      // A daemon is no need for this: what it says is left out when there is none.
      const options = { signal: session.signal, timeoutMs: 2000 }
      const server = await session.ask((engine) => engine.version(options)).catch(() => undefined)
      if (session.isStructured) {
        const known = server && (await session.ask((engine) => engine.listPlugins({ needs: false }, options)).catch(() => []))
        const plugins = known?.map(({ name, version: itsOwn }) => ({ name, version: itsOwn }))
        const document = { client: { version: client, node: process.version, api: API }, server: server && { ...server, plugins } }
        return session.printDocument(document, session.format)
      }
      session.print(
        `client ${client}\n${server === undefined ? 'no daemon' : `daemon ${server.version}, CRIU ${server.criu}, kernel ${server.kernel}`}`,
      )
    })
}

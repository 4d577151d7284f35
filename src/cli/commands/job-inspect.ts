import type { CliCommand } from '../command.js'
import { nonEmpty, outputFlags } from '../shared-flags.js'

export function jobInspect(command: CliCommand): void {
  outputFlags(command.argument('<JID>', 'job id', nonEmpty))
    .example('cedana job inspect train', "cedana job inspect train -o json | jq '.exit.code'")
    .does(async (session, _options, [jid = '']) => {
      const view = await session.ask((engine) => engine.getJob(jid, { signal: session.signal }))
      if (session.options.quiet === true || session.format === 'name') return session.print(view.jid)
      await session.printDocument(view, session.format === 'json' ? 'json' : 'yaml')
    })
}

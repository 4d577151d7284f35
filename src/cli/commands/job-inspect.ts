import type { CliCommand } from '../command.js'
import { jobArgument, jobOf, type LatestFlag } from '../latest.js'
import { outputFlags } from '../shared-flags.js'

export function jobInspect(command: CliCommand): void {
  outputFlags(jobArgument(command))
    .example('cedana job inspect train', "cedana job inspect train -o json | jq '.exit.code'")
    .does<LatestFlag>(async (session, flags, [name]) => {
      const jid = await jobOf(session, name, flags)
      const view = await session.ask((engine) => engine.getJob(jid, { signal: session.signal }))
      if (session.options.quiet === true || session.format === 'name') return session.print(view.jid)
      await session.printDocument(view, session.format === 'json' ? 'json' : 'yaml')
    })
}

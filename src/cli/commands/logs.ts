import { Option } from 'commander'
import type { CliCommand } from '../command.js'
import { CliError } from '../exit-codes.js'
import { jobArgument, jobOf, type LatestFlag } from '../latest.js'
import { showLog, type LogFlags } from '../log-file.js'
import { integer } from '../shared-flags.js'

export function logs(command: CliCommand): void {
  jobArgument(command)
    .option('-f, --follow', 'go on as it grows, until Ctrl-C')
    .addOption(new Option('-n, --tail <N>', 'only the last lines').argParser(integer))
    .example('cedana logs train', 'cedana logs -f --tail 20 train', 'cedana logs --latest')
    .does<LogFlags & LatestFlag>(async (session, flags, [name]) => {
      const jid = await jobOf(session, name, flags)
      const job = await session.ask((engine) => engine.getJob(jid, { signal: session.signal }))
      const path = job.logPath
      if (path === '') throw new CliError(`job ${jid} has no log`, job.attachable ? { hint: `use: cedana job attach ${jid}` } : {})
      await showLog(session.world, path, flags)
    })
}

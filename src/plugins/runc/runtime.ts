import type { Host } from '../contract/host.js'
import type { Target } from '../contract/job.js'
import type { ParsedOptions } from '../contract/options.js'
import { freeze, kill, remove, unfreeze } from './control.js'
import { dump } from './dump.js'
import { query } from './query.js'
import { restore } from './restore.js'
import { run } from './run.js'
import { identityOf, liveInit } from './state.js'
import { upcoming } from './upcoming.js'

/** Checked against the manifest's claims where plugin.ts loads it. */
export const runtime = {
  run,
  upcoming,
  dump,
  restore,
  freeze,
  unfreeze,
  kill,
  remove,
  query,
  resolve: (host: Host, options: ParsedOptions): Promise<Target> => liveInit(host, identityOf(options)),
}

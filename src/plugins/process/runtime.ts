import type { z } from 'zod'
import type { Host } from '../contract/host.js'
import type { Target } from '../contract/job.js'
import { dump } from './dump.js'
import type { ResolveOptions } from './options.js'
import { query } from './query.js'
import { restore } from './restore.js'
import { run } from './run.js'

/** Checked against the manifest's claims where plugin.ts loads it. */
export const runtime = {
  run,
  dump,
  restore,
  query,
  resolve: (host: Host, options: z.output<typeof ResolveOptions>) => host.identify(options.pid),
  // A bare process shares its cgroup with others, so the tree is stopped by signal.
  freeze: (host: Host, target: Target) => host.stopTree(target),
  unfreeze: (host: Host, target: Target) => host.continueTree(target),
}

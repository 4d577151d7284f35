/** How __NAME__ does what it claims: plans, which the daemon carries out. Whatever touches the machine goes by `host`. */
import { dirname } from 'node:path'
import { asCaller, CedanaError, orUndefined, waitFor } from 'cedana/plugin'
import type { DumpPlan, Host, RestorePlan, RunContext, RunPlan, Target, z } from 'cedana/plugin'
import type { ResolveOptions, RunOptions } from './index.js'

async function run(_host: Host, context: RunContext, { pidFile, program, args }: z.output<typeof RunOptions>): Promise<RunPlan> {
  // The shell becomes the program: its PID is that of the job.
  const plan = asCaller(context, ['/bin/sh', '-c', 'echo $$ > "$0" && exec "$@"', pidFile, program, ...args])
  // By this the job is known to `resolve` from now on.
  return { ...plan, identity: { pidFile } }
}

type Identity = z.output<typeof ResolveOptions>

async function resolve(host: Host, { pidFile }: Identity): Promise<Target> {
  const pid = Number(await host.readText(pidFile))
  if (!Number.isInteger(pid) || pid <= 0)
    throw new CedanaError('NO_SUCH_PROCESS', `no PID in ${pidFile}`, { hint: 'name the file that the program has written' })
  return host.identify(pid)
}

/** Looks again whenever something changes in the directory of the file. */
const upcoming = (host: Host, identity: Identity): Promise<Target> =>
  waitFor(host, [dirname(identity.pidFile)], () => orUndefined(['NO_SUCH_PROCESS'], () => resolve(host, identity)))

/** Options of CRIU that every process of this kind needs, and what is known to go wrong. */
const dump = async (): Promise<DumpPlan> => ({ criu: {}, attachments: [], problems: [] })
const restore = async (): Promise<RestorePlan> => ({ criu: {}, inherit: [], problems: [] })

export const runtime = {
  run,
  resolve,
  upcoming,
  dump,
  restore,
  freeze: (host: Host, target: Target) => host.stopTree(target),
  unfreeze: (host: Host, target: Target) => host.continueTree(target),
}

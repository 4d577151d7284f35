/** How __NAME__ does what it claims: plans, which the daemon carries out. Whatever touches the machine goes by `host`. */
import { CedanaError, type DumpPlan, type Host, type RestorePlan, type RunContext, type RunPlan, type Target, type z } from 'cedana/plugin'
import type { ResolveOptions, RunOptions } from './index.js'

async function run(_host: Host, context: RunContext, { pidFile, program, args }: z.output<typeof RunOptions>): Promise<RunPlan> {
  const { uid, gid, groups } = context.caller
  return {
    // The shell becomes the program: its PID is that of the job.
    argv: ['/bin/sh', '-c', 'echo $$ > "$0" && exec "$@"', pidFile, program, ...args],
    environment: context.environment,
    workingDirectory: context.workingDirectory,
    user: { uid, gid, groups },
    // By this the job is known to `resolve` from now on.
    identity: { pidFile },
    problems: [],
  }
}

async function resolve(host: Host, { pidFile }: z.output<typeof ResolveOptions>): Promise<Target> {
  const pid = Number(await host.readText(pidFile))
  if (!Number.isInteger(pid) || pid <= 0)
    throw new CedanaError('NO_SUCH_PROCESS', `no PID in ${pidFile}`, { hint: 'name the file that the program has written' })
  return host.identify(pid)
}

/** Options of CRIU that every process of this kind needs, and what is known to go wrong. */
const dump = async (): Promise<DumpPlan> => ({ criu: {}, attachments: [], problems: [] })
const restore = async (): Promise<RestorePlan> => ({ criu: {}, inherit: [], problems: [] })

export const runtime = {
  run,
  resolve,
  dump,
  restore,
  freeze: (host: Host, target: Target) => host.stopTree(target),
  unfreeze: (host: Host, target: Target) => host.continueTree(target),
}

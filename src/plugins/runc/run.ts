import type { z } from 'zod'
import type { Host } from '../contract/host.js'
import { userOf } from '../contract/kit.js'
import type { RunPlan } from '../contract/plan.js'
import type { RunContext } from '../contract/runtime.js'
import { creationFlags, runtimeCommand, supervisedIn } from './command-line.js'
import type { RunOptions } from './options.js'
import { findState, identityOf, isCrun } from './state.js'

const USUAL_SIZE = { rows: 24, columns: 80 }
import { bundleFor, readSpec } from './spec.js'

/**
 * With a daemon the container is detached and the shim is what it has been orphaned to; without one the runtime itself stays in the foreground,
 * as it would if the caller had called it.
 */
export async function run(host: Host, context: RunContext, options: z.output<typeof RunOptions>): Promise<RunPlan> {
  const bundle = options.bundle || context.workingDirectory
  const identity = identityOf({ id: options.id ?? context.jid, root: options.root, runtime: options.runtime, bundle })
  const spec = await readSpec(host, bundle)
  const state = await findState(host, identity)
  const shared = {
    environment: context.environment,
    workingDirectory: bundle,
    user: userOf(context),
    identity: { ...identity },
    problems: state ? [existing(identity.id)] : [],
  }
  if (context.stdio === 'inherit') {
    const { detach, consoleSocket } = options
    const pidFile = `${context.directory}/pid`
    const argv: [string, ...string[]] = [
      ...runtimeCommand(identity, options, options),
      'run',
      ...['--bundle', bundle, '--pid-file', pidFile],
      ...(detach ? ['--detach'] : []),
      ...(consoleSocket === '' ? [] : ['--console-socket', consoleSocket]),
      ...(options.noSubreaper ? ['--no-subreaper'] : []),
      ...(options.preserveFds > 0 ? ['--preserve-fds', String(options.preserveFds)] : []),
      ...creationFlags(identity, options),
      identity.id,
    ]
    return { ...shared, argv, pidFile, ...(options.preserveFds > 0 ? { preserveFds: options.preserveFds } : {}) }
  }
  const { pidFile, consoleSocket, log } = supervisedIn(context.directory)
  const terminal = context.stdio === 'tty'
  // crun does not wait until somebody could have given the terminal a size: its program would have looked before.
  const { rows: height, columns: width } = context.windowSize ?? USUAL_SIZE
  const consoleSize = terminal && isCrun(identity.runtime) ? { height, width } : undefined
  const used = bundleFor(spec, bundle, { terminal, consoleSize, directory: context.directory })
  const argv: [string, ...string[]] = [
    ...runtimeCommand(identity, { log, logFormat: 'json' }, options),
    'run',
    ...['--detach', '--no-subreaper', '--bundle', used.path, '--pid-file', pidFile],
    ...(terminal ? ['--console-socket', consoleSocket] : []),
    ...creationFlags(identity, options),
    identity.id,
  ]
  return {
    ...shared,
    argv,
    files: used.files,
    launcher: { pidFile, log, ...(terminal ? { consoleSocket } : {}) },
    // A file of the outside for its output would be in the way of every dump.
    streams: { stdio: context.stdio === 'log' ? 'pipe' : context.stdio },
  }
}

const existing = (id: string): RunPlan['problems'][number] => ({
  severity: 'error',
  id: 'container-exists',
  message: `container ${id} exists already`,
  hint: 'choose another id, or delete that one first',
})

/** Podman has runc run its containers below a conmon of each: plans for CRIU are those of runc, and what starts or restores one is podman. */
import { dirname } from 'node:path'
import type { DumpContext, DumpPlan, ExitStatus, Host, LaunchContext, ParsedOptions, Program, QueryResult } from 'cedana/plugin'
import { CedanaError, type RestoreContext, type RestorePlan, type RunContext, type RunPlan, type Target, type z } from 'cedana/plugin'
import type { QueryOptions, RunOptions } from './index.js'
import { type Identity, identityOf, inspect, live, ofRunc, tell } from './podman.js'

/** What a launcher is to do: make a container, or restore the one there is. */
interface Launch {
  readonly identity: Identity
  readonly create?: readonly string[]
  readonly restore?: { readonly images: string; readonly directory: string; readonly flags: readonly string[] }
}

/** Conmon is the parent of what podman starts, and has its output: see `podman logs`. */
function launched(context: Pick<RunContext, 'caller' | 'directory'>, launch: Launch): Omit<Program, 'environment' | 'workingDirectory'> {
  const { uid, gid, groups } = context.caller
  return {
    argv: ['podman', launch.create ? 'run' : 'restore', launch.identity.container],
    user: { uid, gid, groups },
    identity: { ...launch.identity },
    launch: { ...launch },
    launcher: { pidFile: `${context.directory}/pid`, log: `${context.directory}/podman.log`, foreign: true },
  }
}

async function run(_host: Host, context: RunContext, options: z.output<typeof RunOptions>): Promise<RunPlan> {
  const { image, args, create, podman, name = context.jid } = options
  const launch = { identity: { container: name, podman }, create: ['--name', name, ...create, image, ...args] }
  return { ...launched(context, launch), environment: context.environment, workingDirectory: context.workingDirectory, problems: [] }
}

/** It is held by runc until it has been announced: however soon it ends, how is known. */
async function launch(host: Host, context: LaunchContext, request: ParsedOptions): Promise<void> {
  const { identity, create, restore } = request as unknown as Launch
  const { container, podman } = identity
  if (restore) return restored(host, context, identity, restore)
  await tell(host, podman, ['create', ...(create ?? [])])
  try {
    await tell(host, podman, ['init', container])
    await context.announce(await host.identify((await inspect(host, identity)).State.Pid))
    await tell(host, podman, ['start', container])
  } catch (thrown) {
    await tell({ ...host, signal: new AbortController().signal }, podman, ['rm', '--force', container])
    throw thrown
  }
}

async function restored(
  host: Host,
  context: LaunchContext,
  identity: Identity,
  { images, directory, flags }: NonNullable<Launch['restore']>,
): Promise<void> {
  const home = dirname((await inspect(host, identity)).OCIConfigPath)
  await host.exec(['ln', '-sfn', images, `${home}/checkpoint`])
  // Podman gives conmon, and so runc and CRIU, an environment of its own; ours says which CRIU, and how.
  const passed = ['PATH', 'CRIU_CONFIG_FILE'].map((name) => JSON.stringify(`${name}=${context.environment[name] ?? ''}`))
  const line = `conmon_env_vars = [${passed.join(', ')}]`
  const usual = (await host.readText(context.environment['CONTAINERS_CONF'] ?? '/etc/containers/containers.conf')) ?? ''
  const settings = /^\[engine\]$/m.test(usual) ? usual.replace(/^\[engine\]$/m, `[engine]\n${line}`) : `${usual}\n[engine]\n${line}\n`
  await context.writeProgram(`${directory}/containers.conf`, settings)
  await tell(
    host,
    identity.podman,
    ['container', 'restore', ...flags, identity.container],
    [`CONTAINERS_CONF=${directory}/containers.conf`],
  )
  await context.announce(await live(host, identity))
}

async function upcoming(host: Host, options: ParsedOptions): Promise<Target> {
  const identity = identityOf(options)
  using wakeups = host.wakeups()
  for (const runtime of ['runc', 'crun']) wakeups.directory(`/run/${runtime}`)
  for (;;) {
    const found = await inspect(host, identity).catch((thrown: unknown) => {
      if (CedanaError.from(thrown).code !== 'NO_SUCH_CONTAINER') throw thrown
    })
    if (found && (await host.exists(`/run/${found.OCIRuntime}/${found.Id}`))) return host.delegate('runc', 'upcoming', ofRunc(found))
    await wakeups.next()
  }
}

async function dump(host: Host, context: DumpContext): Promise<DumpPlan> {
  const found = await inspect(host, identityOf(context.identity))
  return host.delegate<DumpPlan>('runc', 'dump', { ...context, identity: ofRunc(found) }, {})
}

/** Into the stopped container that podman still has: its files are there, and its network is made again. */
async function restore(host: Host, context: RestoreContext): Promise<RestorePlan> {
  const identity = identityOf(context.identity)
  const { tcpEstablished, fileLocks } = context.switches
  const flags = [...(tcpEstablished ? ['--tcp-established'] : []), ...(fileLocks ? ['--file-locks'] : [])]
  const plan = launched(context, { identity, restore: { images: context.images, directory: context.directory, flags } })
  const program: Program = { ...plan, environment: {}, workingDirectory: '/' }
  const { Status } = (await inspect(host, identity)).State
  const isStopped = Status !== 'running' && Status !== 'paused'
  const problem = {
    severity: 'error',
    id: 'container-exists',
    message: `container ${identity.container} is ${Status}`,
    hint: 'stop it first',
  } as const
  return { criu: {}, inherit: [], problems: isStopped ? [] : [problem], program }
}

/** Of the container itself: runc knows how, whoever started it. */
const byRunc =
  (verb: string) =>
  async (host: Host, target: Target, ...rest: readonly unknown[]): Promise<void> =>
    host.delegate('runc', verb, target, ...rest.slice(0, -1), ofRunc(await inspect(host, identityOf(rest.at(-1) as ParsedOptions))))

/** Podman has seen the end by then, and a restore finds the container stopped. What a failed run has made is podman's to remove. */
async function remove(host: Host, _target: Target | undefined, options: ParsedOptions, why: string): Promise<void> {
  const { container, podman } = identityOf(options)
  await tell(host, podman, why === 'undone' ? ['kill', container] : ['wait', container]).catch(() => undefined)
}

async function exitStatus(host: Host, _target: Target, options: ParsedOptions): Promise<ExitStatus | undefined> {
  const identity = identityOf(options)
  return { code: Number(await tell(host, identity.podman, ['wait', identity.container])) }
}

async function query(host: Host, { podman }: z.output<typeof QueryOptions>): Promise<QueryResult> {
  const listed = JSON.parse(await tell(host, podman, ['ps', '--all', '--format', 'json'])) as readonly Record<string, unknown>[]
  const columns = { NAME: 'Names', ID: 'Id', IMAGE: 'Image', STATUS: 'State', PID: 'Pid' }
  const cells = (one: Record<string, unknown>) =>
    Object.fromEntries(Object.entries(columns).map(([column, key]) => [column, String(one[key])]))
  return { columns: Object.keys(columns), rows: listed.map((one) => ({ cells: cells(one), state: one })), messages: [] }
}

export const runtime = {
  ...{ run, launch, upcoming, dump, restore, remove, exitStatus, query },
  ...{ freeze: byRunc('freeze'), unfreeze: byRunc('unfreeze'), kill: byRunc('kill') },
  resolve: (host: Host, options: ParsedOptions) => live(host, identityOf(options)),
}

/** Podman has runc run its containers below a conmon of each: plans for CRIU are those of runc, and what starts or restores one is podman. */
import { dirname } from 'node:path'
import type { DumpContext, DumpPlan, ExitStatus, Host, InspectedContainer, LaunchContext, ParsedOptions, QueryResult } from 'cedana/plugin'
import type { RemoveReason, RestoreContext, RestorePlan, RunContext, RunPlan, SaveContext, Target, z } from 'cedana/plugin'
import { asCaller, criuEnvironment, delegated, exitOf, inspectContainer, isLive, launchedBy, listing, liveInit } from 'cedana/plugin'
import { orUndefined, patient, restoredBy, standIn, tell, waitFor } from 'cedana/plugin'
import { type QueryOptions, ResolveOptions, type RunOptions } from './index.js'

type Identity = z.output<typeof ResolveOptions>
const identityOf = (options: ParsedOptions): Identity => ResolveOptions.parse(options)

/** What a launcher is to do: make a container, or restore the one there is. */
interface Launch {
  readonly identity: Identity
  readonly create?: readonly string[]
  readonly restore?: { readonly images: string; readonly directory: string; readonly flags: readonly string[] }
}

interface Container extends InspectedContainer {
  readonly OCIRuntime: string
  readonly OCIConfigPath: string
}

/** What `podman container checkpoint` makes, where `podman container restore` looks for it. */
const SHM = 'devshm-checkpoint.tar'

const podman = (host: Host, flags: readonly string[], ...args: readonly string[]): Promise<string> =>
  tell(host, ['podman', ...flags, ...args], { name: `podman ${args[0]}` })

const inspect = (host: Host, { container, podman: flags }: Identity): Promise<Container> =>
  inspectContainer(host, ['podman', ...flags], container)

const resolve = async (host: Host, identity: Identity): Promise<Target> => liveInit(host, await inspect(host, identity))

const ofRunc = ({ Id, OCIRuntime }: Container): ParsedOptions => ({ id: Id, runtime: OCIRuntime })
const byRunc = delegated('runc', async (host, options) => ofRunc(await inspect(host, identityOf(options))))

async function upcoming(host: Host, identity: Identity): Promise<Target> {
  const found = await waitFor(host, ['/run/runc', '/run/crun'], async () => {
    const one = await orUndefined(['NO_SUCH_CONTAINER'], () => inspect(host, identity))
    return one && (await host.exists(`/run/${one.OCIRuntime}/${one.Id}`)) ? one : undefined
  })
  return host.delegate('runc', 'upcoming', ofRunc(found))
}

/** Conmon is the parent of what podman starts, and has its output: see `podman logs`. */
async function run(_host: Host, context: RunContext, options: z.output<typeof RunOptions>): Promise<RunPlan> {
  const { image, args, name = context.jid } = options
  const identity = { container: name, podman: options.podman }
  const launch = { identity, create: ['--name', name, ...options.create, image, ...args] }
  return { ...asCaller(context, ['podman', 'run', name]), ...launchedBy(context, launch), identity }
}

/** It is held by runc until it has been announced: however soon it ends, how is known. */
async function launch(host: Host, context: LaunchContext, request: ParsedOptions): Promise<void> {
  const { identity, create = [], restore: again } = request as unknown as Launch
  const { container, podman: flags } = identity
  if (again) return restored(host, context, identity, again)
  await podman(host, flags, 'create', ...create)
  try {
    await podman(host, flags, 'init', container)
    await context.announce(await host.identify((await inspect(host, identity)).State.Pid))
    await podman(host, flags, 'start', container)
  } catch (thrown) {
    await podman(patient(host), flags, 'rm', '--force', container)
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
  await tell(host, ['ln', '-sfn', images, `${home}/checkpoint`])
  await tell(host, ['ln', '-sfn', `${images}/${SHM}`, `${home}/${SHM}`])
  // Podman gives conmon, and so runc and CRIU, an environment of its own.
  const conmon = `${directory}/conmon`
  const usual = await podman(host, identity.podman, 'info', '--format={{.Host.Conmon.Path}}')
  await context.writeProgram(conmon, standIn(usual.trim(), criuEnvironment(context)))
  await podman(host, [...identity.podman, `--conmon=${conmon}`], 'container', 'restore', ...flags, identity.container)
  await context.announce(await resolve(host, identity))
}

/** Podman makes /dev/shm before runc sees it: to runc, and so to CRIU, it is the outside's. One that is really so stays as it is. */
async function dump(host: Host, context: DumpContext): Promise<DumpPlan> {
  const plan = await byRunc.dump(host, context)
  const { OCIConfigPath } = await inspect(host, identityOf(context.identity))
  const { mounts } = JSON.parse((await host.readText(OCIConfigPath)) ?? '{"mounts":[]}') as { mounts: readonly { source: string }[] }
  const isOwn = mounts.some(({ source }) => source === `${dirname(OCIConfigPath)}/shm`)
  return isOwn ? { ...plan, save: 'also' } : plan
}

async function save(host: Host, { identity, directory }: SaveContext): Promise<() => Promise<void>> {
  const { pid } = await resolve(host, identityOf(identity))
  await tell(host, ['tar', '-C', `/proc/${pid}/root/dev/shm`, '-cf', `${directory}/${SHM}`, '.'])
  return async () => undefined
}

/** Into the stopped container that podman still has: its files are there, and its network is made again. */
async function restore(host: Host, context: RestoreContext): Promise<RestorePlan> {
  const identity = identityOf(context.identity)
  const { images, directory, switches } = context
  const flags = [...(switches.tcpEstablished ? ['--tcp-established'] : []), ...(switches.fileLocks ? ['--file-locks'] : [])]
  const plan = restoredBy(context, {
    argv: ['podman', 'restore', identity.container],
    request: { identity, restore: { images, directory, flags } },
    identity,
  })
  const found = await inspect(host, identity)
  if (!isLive(found)) return plan
  const message = `container ${identity.container} is ${found.State.Status}`
  return { ...plan, problems: [{ severity: 'error', id: 'container-exists', message, hint: 'stop it first' }] }
}

/** Podman has seen the end by then, and a restore finds the container stopped. What a failed run has made is podman's to remove. */
async function remove(host: Host, _target: Target | undefined, options: ParsedOptions, why: RemoveReason): Promise<void> {
  const { container, podman: flags } = identityOf(options)
  await podman(host, flags, why === 'undone' ? 'kill' : 'wait', container).catch(() => undefined)
}

async function exitStatus(host: Host, _target: Target, options: ParsedOptions): Promise<ExitStatus> {
  const { container, podman: flags } = identityOf(options)
  return exitOf(Number(await podman(host, flags, 'wait', container)))
}

interface Listed extends Record<'Id' | 'Image' | 'Names' | 'Pid' | 'State', unknown> {}
async function query(host: Host, { podman: flags }: z.output<typeof QueryOptions>): Promise<QueryResult> {
  const listed = JSON.parse(await podman(host, flags, 'ps', '--all', '--format=json')) as readonly Listed[]
  return listing(listed, { NAME: 'Names', ID: 'Id', IMAGE: 'Image', STATUS: 'State', PID: 'Pid' })
}

export const runtime = { ...byRunc, ...{ run, launch, resolve, upcoming, dump, save, restore, remove, exitStatus, query } }

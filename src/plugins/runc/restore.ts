import { setTimeout } from 'node:timers/promises'
import type { z } from 'zod'
import { CedanaError } from '../contract/errors.js'
import type { Host } from '../contract/host.js'
import { absoluteIn, isBind, userOf, withoutLinks } from '../contract/kit.js'
import { externalKey, type OpenFile, type Snapshot, type StdioMode } from '../contract/job.js'
import {
  type Command,
  CONFIG_DUMP,
  type ContainerDump,
  type Inherit,
  type Problem,
  type Program,
  type RestorePlan,
  SPEC_DUMP,
} from '../contract/plan.js'
import { type RestoreContext, runcRestoreFlags } from '../contract/runtime.js'
import { type Configured, configuredCgroups, membersOf, unifiedPath } from './cgroup.js'
import { creationFlags, runtimeCommand, supervisedIn } from './command-line.js'
import { driverProblems, externalAtRestore } from './driver-mounts.js'
import { CONTAINER, type SavedContainer } from './dump.js'
import { decodeNetwork, NETWORK, networkCommands, networkProblems, withAddress } from './network.js'
import type { RestoreOptions } from './options.js'
import { bundleFor, type Spec, specForRestore } from './spec.js'
import { findState, type Identity, identityOf, isCrun } from './state.js'

type Options = z.output<typeof RestoreOptions>

const ENDING_MS = 20
const ENDING_TRIES = 50

/**
 * By the runtime's own `restore`: it makes cgroups with their limits and device rules, mount points, hooks and its state as for a new container,
 * so that afterwards it is one like any other to it. Only CRIU's images and options are ours.
 */
export async function restore(host: Host, context: RestoreContext, options: Options): Promise<RestorePlan> {
  if (context.caller.uid !== 0) throw new CedanaError('PERMISSION_DENIED', 'only root may restore a container')
  const saved = await savedContainer(context)
  const identity = await chosenIdentity(context, options, saved)
  const found = await specForRestore(host, identity.bundle, await context.attachment(SPEC_DUMP))
  const mounts = await withoutLinks(host, found.spec.mounts, identity.bundle)
  const spec = { ...found.spec, mounts: [...mounts] }
  const namespaces = spec.linux?.namespaces ?? []
  const streams = streamsOf(context, spec.process.terminal ?? false)
  const network = await networkOf(host, context, { namespaces, address: options.netnsEth0Ipv4Addr })
  const bundle = bundleFor(spec, identity.bundle, {
    terminal: streams.terminal,
    directory: context.directory,
    isChanged: found.isSaved || mounts !== found.spec.mounts,
  })
  // Of a checkpoint that is older than these: none.
  const drivers = saved?.driverMounts ?? []
  const effective = { ...options, systemdCgroup: options.systemdCgroup || (saved?.systemdCgroup ?? false) }
  const configured = { id: identity.id, isCrun: isCrun(identity.runtime), path: spec.linux?.cgroupsPath ?? '' }
  const cgroup = await unifiedPath(host, configured, effective.systemdCgroup)
  return {
    criu: {
      ...(drivers.length === 0 ? {} : { external: externalAtRestore(drivers) }),
      ...(cgroup === undefined ? {} : { cg_root: [{ ctrl: '', path: cgroup }] }),
    },
    setup: network.setup,
    inherit: [...nullInherits(context.snapshot), ...streams.inherit],
    problems: [
      ...(await containerProblems(host, identity, spec)),
      ...(configured.path === '' ? [] : await cgroupProblems(host, configured, context.snapshot)),
      ...network.problems,
      ...streams.problems,
      ...(await driverProblems(host, drivers)),
    ],
    program: program(identity, effective, context, bundle, streams),
  }
}

type Namespaces = readonly { readonly type: string; readonly path?: string | undefined }[]
const isOwn = (namespaces: Namespaces, type: string): boolean => namespaces.some((one) => one.type === type && (one.path ?? '') === '')
const isGiven = (namespaces: Namespaces, type: string): boolean => namespaces.some((one) => one.type === type && (one.path ?? '') !== '')

async function containerProblems(host: Host, identity: Identity, { mounts, linux }: Spec): Promise<readonly Problem[]> {
  const namespaces = linux?.namespaces ?? []
  const problems: Problem[] = []
  const add = (id: string, message: string, hint: string): void => void problems.push({ severity: 'error', id, message, hint })
  if (await findState(host, identity)) {
    const hint = `delete that one first (${identity.runtime} delete ${identity.id}), or choose another id with --id`
    add('container-exists', `container ${identity.id} exists already`, hint)
  }
  if (isGiven(namespaces, 'cgroup'))
    add('cgroup-namespace', 'CRIU does not support joining cgroup namespace', 'take the path of the cgroup namespace out of config.json')
  if (isCrun(identity.runtime) && !(await restores(host, identity.runtime))) {
    const hint = 'restore it with --runtime runc (and --root, where that is not /run/runc)'
    add('runtime-without-criu', `this ${identity.runtime} was built without CRIU`, hint)
  }
  for (const { type, path = '' } of namespaces) {
    if (path === '' || (await host.exists(path))) continue
    add('namespace-missing', `external namespace file ${path} (${type}) does not exist`, 'make it, or change config.json of the bundle')
  }
  for (const mount of mounts) {
    if (!isBind(mount) || mount.source === undefined || (await host.exists(absoluteIn(identity.bundle, mount.source)))) continue
    const hint = 'make it, or put a config.json with another source for it into the bundle'
    add('mount-missing', `${mount.source}, which is mounted at ${mount.destination} of the container, does not exist`, hint)
  }
  return problems
}

/** A cgroup that is named can be that of another container: to freeze one would be to freeze both, and neither could be dumped. */
async function cgroupProblems(host: Host, configured: Configured, { processes }: Snapshot): Promise<readonly Problem[]> {
  const directories = await configuredCgroups(host, configured)
  const dumped = new Set(processes.map(({ pid, startTicks }) => `${pid} ${startTicks}`))
  let members = await membersOf(host, directories)
  // Those that a dump has just ended may still be on their way out.
  for (let tries = 0; tries < ENDING_TRIES && members.some(({ pid, startTicks }) => dumped.has(`${pid} ${startTicks}`)); tries++) {
    await setTimeout(ENDING_MS, undefined, { signal: host.signal })
    members = await membersOf(host, directories)
  }
  if (members.length === 0) return []
  const pids = members.map(({ pid }) => pid).join(', ')
  const message = `the cgroup ${configured.path} (cgroupsPath of config.json) has process${members.length === 1 ? '' : 'es'} ${pids} in it`
  const hint = 'end what runs there, or name a bundle with another cgroupsPath, or with none, by --bundle'
  return [{ severity: 'error', id: 'cgroup-shared', message, hint }]
}

/** What is done before CRIU restores the first socket; undefined where CRIU cannot have anything done. */
async function networkOf(
  host: Host,
  context: RestoreContext,
  { namespaces, address }: { readonly namespaces: Namespaces; readonly address: string | undefined },
): Promise<{ readonly setup: readonly Command[] | undefined; readonly problems: readonly Problem[] }> {
  const saved = isOwn(namespaces, 'network') ? await context.attachment(NETWORK) : undefined
  const network = saved && withAddress(decodeNetwork(saved), address)
  // CRIU enters a PID namespace that it is given first, and cannot see the end of its scripts then.
  if (!isGiven(namespaces, 'pid'))
    return { setup: network ? networkCommands(network) : [], problems: network ? await networkProblems(host, network) : [] }
  const names = (network?.links ?? []).map(({ inside }) => inside.name).join(', ')
  const message = `network devices of the container (${names}) cannot be made again: its PID namespace is one of the outside`
  const hint = 'give it a network namespace by its path'
  return { setup: undefined, problems: names === '' ? [] : [{ severity: 'error', id: 'network-not-made', message, hint }] }
}

/** Not every crun has been built to; runc has. */
async function restores(host: Host, runtime: string): Promise<boolean> {
  const { stdout } = await host.exec([runtime, '--version'])
  return stdout.includes('+CRIU')
}

async function savedContainer(context: RestoreContext): Promise<SavedContainer | undefined> {
  const bytes = await context.attachment(CONTAINER)
  return bytes && (JSON.parse(Buffer.from(bytes).toString()) as SavedContainer)
}

/** Of a checkpoint that other programs made: what they called the container, and a state directory of runc. */
async function formerIdentity(context: RestoreContext, id: string | undefined): Promise<Identity> {
  if ('id' in context.identity) return identityOf(context.identity)
  const bytes = await context.attachment(CONFIG_DUMP)
  const former = id ?? (bytes && (JSON.parse(Buffer.from(bytes).toString()) as ContainerDump).id)
  if (former === undefined)
    throw new CedanaError('BAD_OPTIONS', 'the checkpoint does not say of which container it is', { hint: 'name it with --id' })
  return identityOf({ id: former })
}

async function chosenIdentity(context: RestoreContext, options: Options, saved: SavedContainer | undefined): Promise<Identity> {
  const former = await formerIdentity(context, options.id)
  const { id = former.id, runtime = former.runtime } = options
  // Where crun keeps its state runc would not look for its own.
  const root = options.root ?? (isCrun(runtime) === isCrun(former.runtime) ? former.root : '')
  const named = identityOf({ id, runtime, root, bundle: options.bundle || former.bundle || (saved?.bundle ?? '') })
  if (named.bundle !== '') return named
  throw new CedanaError('BAD_OPTIONS', `the bundle of container ${named.id} is not known`, { hint: 'name it with --bundle' })
}

interface Streams {
  readonly terminal: boolean
  readonly stdio: StdioMode
  /** File of the outside that was its output, and is again. */
  readonly log: string | undefined
  readonly inherit: readonly Inherit[]
  readonly problems: readonly Problem[]
}

/** What the standard streams were, inside and out, decides what they can be. `configured`: it was made to have a terminal. */
function streamsOf({ snapshot, stdio: { now } }: RestoreContext, configured: boolean): Streams {
  const [init] = snapshot.processes
  const standard = (init?.files ?? []).filter(({ fd }) => fd <= 2)
  const isInside = mountsOf(snapshot)
  const terminal = init ? standard.some((file) => file.isTty && isInside(file)) : configured
  const outside = standard.filter((file) => !isInside(file) && file.path.startsWith('/') && file.path !== NULL)
  const nothing = { inherit: [], problems: [], log: undefined }
  if (now === 'inherit') return { terminal, stdio: now, ...nothing, inherit: outside.map(inherited) }
  if (terminal) return { terminal, stdio: 'tty', ...nothing }
  const files = [...new Set(outside.filter(({ fd }) => fd > 0).map(({ path }) => path))]
  const [log] = files
  if (log === undefined) return { terminal, stdio: now === 'log' ? 'pipe' : now, ...nothing }
  const problems: Problem[] = outside
    .filter((file) => file.isTty || (file.fd > 0 && file.path !== log) || file.fd === 0)
    .map(({ fd, path }) => ({
      severity: 'error',
      id: 'stream-outside',
      message: `standard stream ${fd} was ${path}, which a daemon cannot give it again`,
      hint: 'restore it with --no-server, with that as the stream of the command',
    }))
  return { terminal, stdio: 'log', log, inherit: outside.filter(({ fd }) => fd > 0).map(inherited), problems }
}

/** Of the outside where no streams were given at a restore before: CRIU, unlike the runtime, puts none of the inside in its place. */
function nullInherits(snapshot: Snapshot): readonly Inherit[] {
  const isInside = mountsOf(snapshot)
  const files = snapshot.processes.flatMap((process) => process.files).filter((file) => file.path === NULL && !isInside(file))
  return [...new Set(files.map(externalKey))].map((key) => ({ key, from: { path: NULL, flags: O_RDWR } }))
}
const NULL = '/dev/null'
const O_RDWR = 2

const STREAMS = ['stdin', 'stdout', 'stderr'] as const
const inherited = (file: OpenFile): Inherit => ({ key: externalKey(file), from: { stdio: STREAMS[file.fd as 0 | 1 | 2] } })

function mountsOf({ mounts }: Snapshot): (file: OpenFile) => boolean {
  const ids = new Set(mounts.map(({ id }) => id))
  return (file) => ids.has(file.mountId)
}

function program(
  identity: Identity,
  options: Options,
  context: RestoreContext,
  bundle: ReturnType<typeof bundleFor>,
  streams: Streams,
): Program {
  const { pidFile, consoleSocket, log } = supervisedIn(context.directory)
  const isForeground = context.stdio.now === 'inherit'
  const socket = isForeground ? options.consoleSocket : streams.terminal ? consoleSocket : ''
  const argv: [string, ...string[]] = [
    ...runtimeCommand(identity, isForeground ? options : { log, logFormat: 'json' }, options),
    'restore',
    ...['--bundle', bundle.path, '--image-path', context.images, '--work-path', context.work, '--pid-file', pidFile],
    ...(isForeground && !options.detach ? [] : ['--detach']),
    ...(socket === '' ? [] : ['--console-socket', socket]),
    ...(isCrun(identity.runtime) || (isForeground && !options.noSubreaper) ? [] : ['--no-subreaper']),
    ...runcRestoreFlags(context.switches),
    ...creationFlags(identity, options),
    identity.id,
  ]
  return {
    argv,
    environment: {},
    workingDirectory: identity.bundle,
    user: userOf(context),
    files: bundle.files,
    identity: { ...identity },
    ...(isForeground ? { pidFile } : { launcher: { pidFile, log, ...(streams.terminal ? { consoleSocket } : {}) } }),
    streams: { stdio: streams.stdio, ...(streams.log === undefined ? {} : { log: streams.log }) },
  }
}

/** What most runtimes do in the same way, for plugins to build on. None of it can do more than the contract says. */
import type { Support } from './capability.js'
import { CedanaError, type ErrorCode } from './errors.js'
import type { Host } from './host.js'
import type { ExitStatus, Target } from './job.js'
import type { ParsedOptions } from './options.js'
import type { DumpPlan, Program, RestorePlan, RunPlan } from './plan.js'
import type { DumpContext, LaunchContext, QueryResult, RestoreContext, RunContext, Verb } from './runtime.js'

/** Claims of a manifest: `verbs: stable('run', 'resolve')`. */
export const stable = <V extends Verb>(...verbs: readonly V[]): Readonly<Record<V, 'stable' & Support>> =>
  Object.fromEntries(verbs.map((verb) => [verb, 'stable'])) as Record<V, 'stable'>

/** A program that is run as the caller, where the caller is, with the caller's environment. */
export function asCaller(context: RunContext, argv: RunPlan['argv']): RunPlan {
  const { environment, workingDirectory } = context
  return { argv, environment, workingDirectory, user: userOf(context), problems: [] }
}

/** The ids of who asks, without the PID. */
export function userOf({ caller: { uid, gid, groups } }: Pick<RunContext, 'caller'>): Program['user'] {
  return { uid, gid, groups }
}

/** Of a program that is brought up by the verb `launch`, as the child of another process: what that is to be called with. */
export const launchedBy = (
  { directory }: Pick<RunContext, 'directory'>,
  request: ParsedOptions,
): Required<Pick<Program, 'launch' | 'launcher'>> => ({
  launch: request,
  launcher: { pidFile: `${directory}/pid`, log: `${directory}/launcher.log`, foreign: true },
})

/** A restore by the verb `launch`: `argv` says what is started. `identity`: the options of `resolve` that name the target from now on. */
export function restoredBy(
  context: Pick<RestoreContext, 'caller' | 'directory'>,
  { argv, request, identity }: { readonly argv: Program['argv']; readonly request: ParsedOptions; readonly identity: ParsedOptions },
): RestorePlan & { readonly program: Program } {
  const program = { argv, environment: {}, workingDirectory: '/', user: userOf(context), identity, ...launchedBy(context, request) }
  return { criu: {}, inherit: [], problems: [], program }
}

/**
 * By the first two a program that has CRIU restore learns which CRIU, and how; by the third it is known who works on which start, to be ended when that is
 * given up. It must hand them on.
 */
export const criuEnvironment = ({
  environment,
}: Pick<LaunchContext, 'environment'>): Readonly<Record<'PATH' | 'CRIU_CONFIG_FILE' | 'CEDANA_START', string>> => ({
  PATH: environment['PATH'] ?? '',
  CRIU_CONFIG_FILE: environment['CRIU_CONFIG_FILE'] ?? '',
  CEDANA_START: environment['CEDANA_START'] ?? '',
})

/** One word of a shell, whatever is in it. */
export const quoted = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`

/** The text of a program that becomes another with an environment of ours, for who would start that with its own. */
export function standIn(program: string, environment: Readonly<Record<string, string>>): string {
  const settings = Object.entries(environment).map(([name, value]) => `export ${name}=${quoted(value)}`)
  return ['#!/bin/sh', ...settings, `exec ${quoted(program)} "$@"`, ''].join('\n')
}

export interface TellOptions {
  readonly timeoutMs?: number
  /** What it is called in messages; absent: by its file. */
  readonly name?: string
  /** What it says where there is no such container (or what else `code` says), and what to do then. */
  readonly missing?: { readonly pattern: RegExp; readonly hint: string; readonly code?: ErrorCode }
}

/**
 * Runs a program that must succeed, and answers what it prints. If it does not the last line of its errors is said to be why: HOST_UNFIT, or what
 * `missing` makes of it.
 */
export async function tell(host: Host, argv: readonly [string, ...string[]], options: TellOptions = {}): Promise<string> {
  const { name = argv[0], timeoutMs, missing } = options
  const { code, stdout, stderr } = await host.exec(argv, timeoutMs === undefined ? {} : { timeoutMs })
  if (code === 0) return stdout
  const reason = reasonIn(stderr)
  if (missing?.pattern.test(reason) === true) throw new CedanaError(missing.code ?? 'NO_SUCH_CONTAINER', reason, { hint: missing.hint })
  const why = reason === '' ? `it ended with ${code}` : reason
  throw new CedanaError('HOST_UNFIT', `${name} failed: ${why}`, { detail: { exitCode: code } })
}

/** A line for people, or one of a log (`level=error msg="…"`). */
function reasonIn(stderr: string): string {
  const last = stderr.trim().split('\n').at(-1) ?? ''
  return (/msg="(.*)"$/.exec(last)?.[1] ?? last).replace(/^(error|fatal): */i, '')
}

/** A container as Podman, Docker and nerdctl show it by `container inspect`; what only some of them say is for `T`. */
export interface InspectedContainer {
  readonly Id: string
  readonly State: { readonly Pid: number; readonly Status: string }
}

const NO_SUCH = /no such container|no container with name/i

/** Of such a program, with its flags: `['podman', '--root=DIR']`. Throws NO_SUCH_CONTAINER. */
export async function inspectContainer<T extends InspectedContainer>(
  host: Host,
  engine: readonly [string, ...string[]],
  name: string,
): Promise<T> {
  const missing = { pattern: NO_SUCH, hint: `see: ${engine[0]} ps --all` }
  const [found] = JSON.parse(await tell(host, [...engine, 'container', 'inspect', name], { missing })) as readonly [T]
  return found
}

export const isLive = ({ State: { Pid, Status } }: InspectedContainer): boolean => Pid > 0 && ['running', 'paused'].includes(Status)

/** Its first process. Throws NO_SUCH_CONTAINER when it has ended or has not been started. */
export async function liveInit(host: Host, container: InspectedContainer): Promise<Target> {
  if (isLive(container)) return host.identify(container.State.Pid)
  throw new CedanaError('NO_SUCH_CONTAINER', `container ${container.Id} is not running (${container.State.Status})`)
}

/** Where whoever asked may have gone already, but what was made must be taken back. */
export const patient = (host: Host): Host => ({ ...host, signal: new AbortController().signal })

/** A mount of the OCI runtime specification, as far as it matters here. */
export interface ContainerMount {
  readonly type?: string | undefined
  readonly source?: string | undefined
  readonly options?: readonly string[] | null | undefined
}

export const isBind = ({ type, options }: ContainerMount): boolean =>
  type === 'bind' || (options ?? []).some((option) => option === 'bind' || option === 'rbind')

export const absoluteIn = (directory: string, path: string): string => (path.startsWith('/') ? path : `${directory}/${path}`)

/**
 * Bind mounts by what their sources lead to: runc and crun follow a symbolic link when they make a container, and CRIU, which mounts at a restore, does
 * not. The same array when none is one. `bundle`: where relative sources begin.
 */
export async function withoutLinks<M extends ContainerMount>(host: Host, mounts: readonly M[], bundle: string): Promise<readonly M[]> {
  const sourceOf = (mount: M): string | undefined =>
    isBind(mount) && mount.source !== undefined ? absoluteIn(bundle, mount.source) : undefined
  const sources = mounts.flatMap((mount) => sourceOf(mount) ?? [])
  if (sources.length === 0) return mounts
  const { code, stdout } = await host.exec(['realpath', '--canonicalize-missing', '--zero', '--', ...sources])
  const targets = new Map(stdout.split('\0').map((target, index) => [sources[index], target]))
  if (code !== 0 || sources.every((source) => targets.get(source) === source)) return mounts
  return mounts.map((mount) => {
    const source = sourceOf(mount)
    return source === undefined ? mount : { ...mount, source: targets.get(source) }
  })
}

/** Waits until `look` finds something. `directories`: something in them changes when it may; they need not exist yet. Ends by `host.signal`. */
export async function waitFor<T>(host: Host, directories: readonly string[], look: () => Promise<T | undefined>): Promise<T> {
  using wakeups = host.wakeups()
  for (const directory of directories) wakeups.directory(directory)
  for (;;) {
    const found = await look()
    if (found !== undefined) return found
    await wakeups.next()
  }
}

/** What `find` finds; undefined where it throws one of these codes. */
export async function orUndefined<T>(codes: readonly ErrorCode[], find: () => Promise<T>): Promise<T | undefined> {
  try {
    return await find()
  } catch (thrown) {
    if (codes.includes(CedanaError.from(thrown).code)) return undefined
    throw thrown
  }
}

/** An exit status as a shell and most runtimes of containers have it: 128 and the number of a signal. */
export const exitOf = (code: number): ExitStatus => (code > 128 && code <= 128 + 64 ? { signal: code - 128 } : { code })

interface Delegated {
  readonly dump: (host: Host, context: DumpContext) => Promise<DumpPlan>
  readonly freeze: (host: Host, target: Target, identity: ParsedOptions) => Promise<void>
  readonly unfreeze: (host: Host, target: Target, identity: ParsedOptions) => Promise<void>
  readonly kill: (host: Host, target: Target, signal: number, identity: ParsedOptions) => Promise<void>
}

/** Verbs that another runtime has for the same targets. `named`: the options of its `resolve`, of ours. */
export function delegated(runtime: string, named: (host: Host, identity: ParsedOptions) => Promise<ParsedOptions>): Delegated {
  return {
    dump: async (host, context) => host.delegate(runtime, 'dump', { ...context, identity: await named(host, context.identity) }, {}),
    freeze: async (host, target, identity) => host.delegate(runtime, 'freeze', target, await named(host, identity)),
    unfreeze: async (host, target, identity) => host.delegate(runtime, 'unfreeze', target, await named(host, identity)),
    kill: async (host, target, signal, identity) => host.delegate(runtime, 'kill', target, signal, await named(host, identity)),
  }
}

/** Of a `query` that names what it is about: that none of it is there is no answer. `absent`: what is said of each that is not. */
export function refuseNone(code: ErrorCode, rows: readonly unknown[], absent: readonly string[]): void {
  if (rows.length === 0 && absent.length > 0) throw new CedanaError(code, absent.join('; '))
}

/** The answer of `query`: a row for each, with these columns of its members. */
export function listing<T extends object>(items: readonly T[], columns: Readonly<Record<string, keyof T>>): QueryResult {
  const cells = (item: T): Record<string, string> =>
    Object.fromEntries(Object.entries(columns).map(([column, member]) => [column, String(item[member] ?? '')]))
  return { columns: Object.keys(columns), rows: items.map((item) => ({ cells: cells(item), state: item })), messages: [] }
}

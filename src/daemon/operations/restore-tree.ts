/**
 * The two ways to bring a checkpoint's tree up under a shim: CRIU, driven from here; or a program of the runtime, which makes the surroundings of
 * the tree (a container) and has CRIU restore into them. Whichever it is, nothing of the tree runs before all of the checkpoint is verified.
 */
import { closeSync } from 'node:fs'
import { copyFile, mkdir, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { StdioMode } from '../../plugins/contract/job.js'
import type { Command, CriuOptions, Inherit, Problem, Program } from '../../plugins/contract/plan.js'
import * as criu from '../host/criu.js'
import * as processes from '../host/processes.js'
import { launchShim, type LaunchedShim, SHIM_SLOTS, shimOpenSlot } from '../host/shim.js'
import { writeWhole } from '../host/write-whole.js'
import type { CheckpointReader } from '../images/reader.js'
import type { JobRecord } from '../jobs/job.js'
import { actionScript, configFile, type Gate, openInherited } from './criu-options.js'
import { CRIU_RESTORE_LOG, type CriuWork } from './criu-work.js'
import { type Environment, refuseProblems } from './environment.js'
import { startProgram, toldPid } from './program.js'
import { undoStart } from './starts.js'
import type { Call, RestoreRequest } from './verbs.js'

export interface TreePlan {
  readonly criu: CriuOptions
  readonly inherit: readonly Inherit[]
  readonly problems: readonly Problem[]
  readonly program: Program | undefined
  /** Undefined: no scripts. */
  readonly setup: readonly Command[] | undefined
  /** Undefined: the target's mounts are those of this machine. */
  readonly root: string | undefined
}

/** What has to be known before anything of the tree runs, under way. */
export interface Checks {
  /** All that can be known to fail. */
  readonly problems: Promise<readonly Problem[]>
  readonly images: Promise<void>
  readonly pages: Promise<void>
  /** Of images and pages. */
  readonly verified: Promise<unknown>
}

export function checking(reader: CheckpointReader, problems: Promise<readonly Problem[]>): Checks {
  const [images, pages] = [reader.verifyImages(), reader.verifyPages()]
  const verified = Promise.all([images, pages])
  for (const one of [problems, verified]) one.catch(() => undefined)
  return { problems, images, pages, verified }
}

/** Throws what the checks have found, when the tree could not be built. */
async function damage(reader: CheckpointReader, { verified }: Checks): Promise<void> {
  reader.notBuilt()
  await verified.catch((thrown: unknown) => {
    if (CedanaError.from(thrown).code !== 'CANCELLED') throw thrown
  })
}

export interface TreeRequest {
  readonly call: Call
  readonly request: RestoreRequest
  readonly signal: AbortSignal
  readonly binary: criu.CriuBinary
  readonly plan: TreePlan
  readonly reader: CheckpointReader
  /** Begins them: they change nothing, and take their time beside CRIU's own look at the kernel. */
  readonly check: () => Checks
  readonly type: string
  /** Of the job, there already. */
  readonly directory: string
  readonly work: CriuWork
  readonly pending: { readonly file: string; readonly ended: boolean } | undefined
  readonly job: JobRecord | undefined
  readonly stdio: StdioMode
}

export interface RestoredTree {
  /** Of what the shim watches. */
  readonly pid: number
  readonly startTicks: string
  /** Of the target, where that is not the same. */
  readonly targetPid: number
  readonly launched: Promise<LaunchedShim>
  /** Worth knowing: they have not kept it from being restored. */
  readonly problems: readonly Problem[]
}

/** Descriptor numbers that CRIU, started by the shim, finds the inherited files under. */
function inheritFds(inherit: readonly Inherit[]): {
  readonly fds: { key: string; fd: number }[]
  readonly open: { path: string; flags: number }[]
} {
  const open: { path: string; flags: number }[] = []
  const fds = inherit.map(({ key, from }) => {
    if ('stdio' in from) return { key, fd: SHIM_SLOTS[from.stdio] }
    open.push({ path: from.path, flags: from.flags })
    return { key, fd: shimOpenSlot(open.length - 1) }
  })
  return { fds, open }
}

const TOLD_EVERY_MS = 3

type Argv = readonly [string, ...string[]]

export async function restoreByCriu(env: Environment, tree: TreeRequest): Promise<RestoredTree> {
  const { call, request, signal, binary, plan, reader, work, pending, job } = tree
  const { fds, open } = inheritFds(plan.inherit)
  const swrk: Argv = [...binary.command, 'swrk', '3']
  const own = plan.root === undefined ? { argv: swrk, options: {} } : await withRoot(swrk, plan.root, tree.directory)
  const session = criu.restoreSession(signal)
  const launched = launchShim({
    shimPath: env.shimPath,
    directory: tree.directory,
    stdio: tree.stdio,
    log: job !== undefined && job.log !== '' ? job.log : undefined,
    logAsUser: request.log !== '',
    user: { uid: call.caller.uid, gid: call.caller.gid, groups: call.caller.groups },
    environment: { PATH: env.searchPath },
    argv: own.argv,
    windowSize: request.windowSize,
    waitAttach: request.waitAttach,
    foreground: env.foreground,
    stdinFile: pending?.file,
    stdinEnded: pending?.ended,
    restore: { rpcFd: session.peerFd, open },
    signal,
  })
  launched.catch(() => undefined)
  closeSync(session.peerFd)
  // Not before: CRIU would be started later by what it shares the processors with.
  const checks = tree.check()
  const hooks = {
    onReady: async () => {
      refuseProblems(await checks.problems)
      await checks.images
    },
    onBuilt: (rootPid: number) => {
      reader.built(rootPid)
      return checks.pages
    },
  }
  const options = { ...plan.criu, ...own.options, images_dir_fd: reader.imagesFd, work_dir_fd: work.fd, inherit_fd: fds }
  try {
    const pid = await Promise.race([session.restore(options, hooks), launched.then((shim) => shim.pid)])
    // The shim tells the same when CRIU has ended and its own record is on disk; the job's record need not wait for that.
    const root = await processes.identify(pid).catch(() => launched)
    return { pid, startTicks: root.startTicks, targetPid: pid, launched, problems: await checks.problems }
  } catch (thrown) {
    session.close()
    await launched.catch(() => undefined)
    // What was foreseen, or a damaged checkpoint, explains whatever CRIU had to say.
    if (!signal.aborted) refuseProblems(await checks.problems)
    await damage(reader, checks)
    throw await work.explain(await preferShim(thrown, launched))
  }
}

/**
 * CRIU wants the root of a new mount namespace as a mount by itself. It is made in a namespace that only CRIU is in, so that it is gone with CRIU,
 * whatever becomes of us; what is mounted on this machine meanwhile still arrives there, and from there nothing comes back.
 */
async function withRoot(command: Argv, root: string, directory: string): Promise<{ readonly argv: Argv; readonly options: CriuOptions }> {
  const place = join(directory, 'root')
  await mkdir(place, { mode: 0o700 })
  const script = 'mount --bind "$1" "$0" && mount --make-private "$0" && shift && exec "$@"'
  return { argv: ['unshare', '--mount', '--propagation', 'slave', 'sh', '-c', script, place, root, ...command], options: { root: place } }
}

/** When the shim could not even start CRIU, its report says more than the broken session. */
async function preferShim(thrown: unknown, launched: Promise<unknown>): Promise<unknown> {
  return launched.then(
    () => thrown,
    (reported: unknown) => (reported instanceof CedanaError && reported.code !== 'CRIU_RESTORE_FAILED' ? reported : thrown),
  )
}

/** Where the runtime's program has CRIU work, below the directory of the job. */
export const programWork = (directory: string): string => join(directory, 'criu')
/** As runc and crun call it. */
const PROGRAM_LOG = 'restore.log'

export async function restoreByProgram(env: Environment, tree: TreeRequest): Promise<RestoredTree> {
  const { type, request, signal, binary, plan, reader, directory, work, pending, job, stdio } = tree
  const { program } = plan
  if (!program) throw new CedanaError('BUG', 'no program to restore by')
  const checks = tree.check()
  const problems = await checks.problems
  refuseProblems(problems)
  await checks.images
  // The program does not wait for us, but CRIU does for its action script, where it can run one.
  if (!plan.setup) await checks.pages
  const gate = { built: join(directory, 'built'), open: join(directory, 'verified'), keeper: process.pid }
  // There already: when it is time to open it no disk can be full.
  const shut = join(directory, 'unverified')
  await writeWhole(shut, '')
  void checks.pages
    .then(
      () => rename(shut, gate.open),
      () => rename(shut, `${gate.open}.not`),
    )
    .catch(() => undefined)
  await mkdir(programWork(directory), { mode: 0o700 })
  const environment = { ...program.environment, ...(await criuFor(directory, env.searchPath, { binary, plan, gate })) }
  const launched = startProgram(env, {
    type,
    directory,
    program: { ...program, environment },
    stdio,
    log: job?.log ?? '',
    logAsUser: request.log !== '',
    windowSize: request.windowSize,
    waitAttach: request.waitAttach,
    stdinFile: pending?.file,
    stdinEnded: pending?.ended,
    signal,
  })
  const isOver = new AbortController()
  void toldBuilt(gate.built, isOver.signal).then((rootPid) => {
    if (rootPid !== undefined) reader.built(rootPid)
  })
  try {
    const { pid, startTicks } = await launched
    // The images are needed for as long as the restore takes, which a program that stays does not tell by ending.
    const targetPid = await toldPid(program, { pid, startTicks })
    if (targetPid === undefined) {
      await undoStart(env, { type, identity: program.identity ?? {} }, directory)
      throw new CedanaError('CRIU_RESTORE_FAILED', `${program.argv[0]} restored nothing`)
    }
    return { pid, startTicks, targetPid, launched, problems }
  } catch (thrown) {
    if (signal.aborted) throw thrown
    // A damaged checkpoint explains whatever CRIU had to say.
    await damage(reader, checks)
    await copyFile(join(programWork(directory), PROGRAM_LOG), join(work.directory, CRIU_RESTORE_LOG)).catch(() => undefined)
    const error = CedanaError.from(thrown)
    // What a launcher knows a remedy for needs no log of CRIU's.
    const isUnclear = error.detail['step'] === 'launcher' && error.hint === undefined
    throw await work.explain(
      isUnclear ? new CedanaError('CRIU_RESTORE_FAILED', error.message, { cause: error, detail: error.detail }) : error,
    )
  } finally {
    isOver.abort()
  }
}

/** The PID that CRIU's action script writes down. */
async function toldBuilt(path: string, isOver: AbortSignal): Promise<number | undefined> {
  while (!isOver.aborted) {
    const [, pid] = /^(\d+)\n$/.exec((await readFile(path, 'utf8').catch(() => '')) || '') ?? []
    if (pid !== undefined) return Number(pid)
    await sleep(TOLD_EVERY_MS)
  }
  return undefined
}

/** The environment in which a program finds our CRIU, and CRIU our options. */
async function criuFor(
  directory: string,
  searchPath: string,
  { binary, plan, gate }: { readonly binary: criu.CriuBinary; readonly plan: TreePlan; readonly gate: Gate },
): Promise<Record<string, string>> {
  const [bin, config] = [join(directory, 'bin'), join(directory, 'criu.conf')]
  await mkdir(bin, { mode: 0o700 })
  const quoted = binary.command.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ')
  await writeWhole(join(bin, 'criu'), `#!/bin/sh\n${openInherited(plan.inherit)}exec ${quoted} "$@"\n`, 0o700)
  const script = join(directory, 'actions')
  if (plan.setup) await writeWhole(script, actionScript(plan.setup, gate), 0o700)
  const actions = plan.setup ? `action-script ${script}\n` : ''
  await writeWhole(config, configFile(plan.criu, plan.inherit) + actions)
  return { PATH: `${bin}:${searchPath}`, CRIU_CONFIG_FILE: config }
}

/** A program that a plugin's plan names, started as the root of a job or as what brings the root up. */
import { mkdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { ExitStatus, StdioMode, Target } from '../../plugins/contract/job.js'
import type { Program } from '../../plugins/contract/plan.js'
import { bootId, isAlive, readText } from '../host/processes.js'
import { launchShim, type LaunchedShim, type ShimRequest } from '../host/shim.js'
import { writeWhole } from '../host/write-whole.js'
import type { EndReason, JobRecord } from '../jobs/job.js'
import { targetOf } from '../jobs/table.js'
import type { Environment } from './environment.js'
import { hostFor } from './host.js'
import type { LaunchFailure, LaunchOrder } from './launch.js'
import { endedStart, leftForeground, noteStart, REMOVE_MS, removeTarget, undoStart } from './starts.js'

const TOLD_EVERY_MS = 10
/** In the directory of the job: what a plugin that is its own launcher is to do. */
const LAUNCH = 'launch.json'

interface Start extends Pick<ShimRequest, 'logAsUser' | 'windowSize' | 'waitAttach' | 'stdinFile' | 'stdinEnded' | 'signal'> {
  /** Runtime plugin. */
  readonly type: string
  readonly directory: string
  readonly program: Program
  readonly stdio: StdioMode
  readonly log: string
}

export async function startProgram(env: Environment, { type, directory, program, stdio, log, ...request }: Start): Promise<LaunchedShim> {
  for (const { name, content } of program.files ?? []) {
    await mkdir(dirname(join(directory, name)), { recursive: true, mode: 0o700 })
    await writeWhole(join(directory, name), content)
  }
  const order = orderFor(env, type, program)
  if (order) await writeWhole(join(directory, LAUNCH), JSON.stringify(order))
  const streams = program.streams ?? { stdio }
  const isClosed = stdio === 'log' && streams.stdio === 'pipe'
  const kept = streams.log ?? log
  const noted = await noteStart(env, { type, directory, program })
  try {
    return await launchShim({
      ...request,
      shimPath: env.shimPath,
      directory,
      stdio: streams.stdio,
      log: kept === '' ? undefined : kept,
      user: program.user,
      workingDirectory: program.workingDirectory,
      environment: { ...program.environment, ...noted },
      argv: order ? [...env.launcher, join(directory, LAUNCH)] : program.argv,
      foreground: env.foreground,
      preserve: program.preserveFds,
      launcher: program.launcher,
      // Nobody can attach to a job that logs: its input has ended.
      stdinEnded: request.stdinEnded === true || isClosed,
    })
  } catch (thrown) {
    const error = CedanaError.from(thrown)
    const { step, exitCode } = error.detail
    const start = { type, identity: program.identity ?? {} }
    // One that fails removes what it has made. One that was given up when it had succeeded, or was killed, or whose shim was, does not.
    if (step === 'shim' || (step === 'launcher' && !(Number(exitCode) > 0))) await undoStart(env, start, directory)
    else if (step === 'launcher' && !order) await endedStart(env, start)
    const reason: unknown = request.signal?.aborted === true ? request.signal.reason : undefined
    if (reason !== undefined)
      throw reason instanceof CedanaError ? reason : new CedanaError('CANCELLED', 'start cancelled', { cause: error })
    throw await explained(program, error)
  }
}

/** The environment of a job says nothing of how this daemon is configured: its launcher is told. */
const orderFor = ({ config: { plugins, gpu } }: Environment, type: string, { launch, launcher }: Program): LaunchOrder | undefined =>
  launch && launcher && { type, launch, launcher, config: { plugins, gpu } }

/** A launcher tells why it failed in its own log: the last line of it. */
async function explained({ argv, launcher }: Program, error: CedanaError): Promise<CedanaError> {
  if (launcher === undefined || error.detail['step'] !== 'launcher') return error
  const line = (await readText(launcher.log))?.trimEnd().split('\n').at(-1) ?? ''
  const said = messageOf(line)
  if (said.code !== undefined)
    return new CedanaError(said.code, said.msg, {
      cause: error,
      detail: error.detail,
      ...(said.hint === undefined ? {} : { hint: said.hint }),
    })
  return said.msg === '' ? error : new CedanaError(error.code, `${argv[0]}: ${said.msg}`, { cause: error, detail: error.detail })
}

function messageOf(line: string): LaunchFailure {
  try {
    return { msg: '', ...(JSON.parse(line) as Partial<LaunchFailure>) }
  } catch {
    return { msg: line }
  }
}

/**
 * The PID of the target: of the program itself, or what a program that stays with its target says once that is there. Undefined when it has ended
 * before.
 */
export async function toldPid(
  program: Program | undefined,
  started: { readonly pid: number; readonly startTicks: string },
): Promise<number | undefined> {
  if (program?.pidFile === undefined) return started.pid
  for (;;) {
    const isThere = await isAlive({ ...started, bootId } as Target)
    const told = (await readText(program.pidFile))?.trim() ?? ''
    if (/^\d+$/.test(told)) return Number(told)
    if (!isThere) return undefined
    await sleep(TOLD_EVERY_MS)
  }
}

/**
 * What the runtime keeps about a job that has ended goes with it, so that it can be restored under its name. What was only put under management
 * belongs to whoever made it, unless it was us who ended it by a dump. `exit`: of what the shim has started, which may only have stayed with the target.
 */
export async function removeRemains(env: Environment, job: JobRecord, reason: EndReason, exit?: ExitStatus): Promise<void> {
  if (job.directory === '' && reason !== 'dumped') return
  if (job.stdio === 'inherit' && (await leftForeground(env, job.directory, exit))) return
  const why = reason === 'dumped' ? 'dumped' : 'ended'
  await removeTarget(env, { type: job.type, target: targetOf(job), identity: job.details, why })
}

/** What the runtime still knows of the end of a job that was nobody's child here. */
export async function rememberedExit(env: Environment, job: JobRecord): Promise<ExitStatus | undefined> {
  if (!env.runtimes.supports(job.type, 'exitStatus')) return undefined
  const ask = await env.runtimes.verb(job.type, 'exitStatus')
  return ask(hostFor(env, AbortSignal.timeout(REMOVE_MS)), targetOf(job), job.details).catch((thrown: unknown) => {
    env.log.warn({ job: job.jid, err: CedanaError.from(thrown).message }, 'the exit status of a job is not known')
    return undefined
  })
}

/**
 * Starts that nobody saw to their end: whoever kills the shim, what the shim runs, the daemon, or all of them, what a runtime's program was making is
 * either a job or goes again. What is being started is noted beside the job's other files, and known by its environment.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { ExitStatus, Target } from '../../plugins/contract/job.js'
import type { ParsedOptions } from '../../plugins/contract/options.js'
import type { Program } from '../../plugins/contract/plan.js'
import type { RemoveReason } from '../../plugins/contract/runtime.js'
import { CedanaError } from '../../plugins/contract/errors.js'
import { unmountBelow } from '../host/mounts.js'
import * as processes from '../host/processes.js'
import { readShimExit, type ShimState } from '../host/shim.js'
import { writeWhole } from '../host/write-whole.js'
import { type Environment, hasMaker, makerName } from './environment.js'
import { hostFor } from './host.js'
import { readNote } from './notes.js'

/** How long a runtime may take to remove what is left of a target. */
export const REMOVE_MS = 10_000
const SIGKILL = 9
/** In the environment of a program that makes its target, and of what it calls, though not of the target: the directory of the job. */
const VARIABLE = 'CEDANA_START'
const FILE = 'start.json'
/** Between the note and the first process of a target: one that is younger has been made by others, under the same name. */
const BEGUN_MS = 60_000
const TICK_MS = 10

const Start = z.object({
  type: z.string(),
  identity: z.record(z.string(), z.unknown()),
  maker: z.string(),
  bootId: z.string(),
  /** Since boot. */
  at: z.number(),
  /** The program stays with its target, in the foreground. */
  stays: z.boolean(),
})
type Start = z.output<typeof Start>

/** A program that makes a target, and removes it again when it fails: unless it is killed. */
const isMaker = ({ launcher, pidFile }: Program): boolean => launcher !== undefined || pidFile !== undefined

const sinceBoot = async (): Promise<number> => Number((await readFile('/proc/uptime', 'utf8')).split(' ')[0]) * 1000

/** Before the program is started. Answers what its environment is to have besides its own. */
export async function noteStart(
  env: Environment,
  { type, directory, program }: { readonly type: string; readonly directory: string; readonly program: Program },
): Promise<Readonly<Record<string, string>>> {
  if (!isMaker(program) || !env.runtimes.supports(type, 'remove')) return {}
  const start: Start = {
    type,
    identity: { ...program.identity },
    maker: makerName(await env.self()),
    bootId: processes.bootId,
    at: await sinceBoot(),
    stays: program.pidFile !== undefined,
  }
  await writeWhole(join(directory, FILE), JSON.stringify(start))
  return { [VARIABLE]: directory }
}

async function readStart(directory: string): Promise<Start | undefined> {
  const start = Start.safeParse(await readNote(join(directory, FILE))).data
  return start?.bootId === processes.bootId ? start : undefined
}

interface Removal {
  readonly type: string
  /** Undefined: it has not come to be, but something may be there. */
  readonly target: Target | undefined
  readonly identity: ParsedOptions
  readonly why: RemoveReason
}

export async function removeTarget(env: Environment, { type, target, identity, why }: Removal): Promise<void> {
  if (!env.runtimes.supports(type, 'remove')) return
  const remove = await env.runtimes.verb(type, 'remove')
  await remove(hostFor(env, AbortSignal.timeout(REMOVE_MS)), target, identity, why).catch((thrown: unknown) => {
    env.log.warn({ type, pid: target?.pid, err: CedanaError.from(thrown).message }, 'the remains of a target could not be removed')
  })
}

/** The program that makes the target and all that it has called, but for the shim. What it waits for is below it. */
async function endMakers(env: Environment, directory: string): Promise<void> {
  for (const until = Date.now() + REMOVE_MS; Date.now() < until;) {
    const makers = (await processes.withVariable(VARIABLE, directory)).filter(({ args }) => args[0] !== env.shimPath)
    if (makers.length === 0) return
    for (const { target } of makers) await processes.killTree(target, SIGKILL)
    await Promise.all(makers.map(({ target }) => processes.waitGone(target, until - Date.now())))
  }
}

/** After the program of a start was killed, or nobody is left to say whether it was. */
export async function undoStart(env: Environment, start: Pick<Start, 'type' | 'identity'>, directory: string): Promise<void> {
  await endMakers(env, directory)
  await unmountBelow(directory)
  await removeTarget(env, { type: start.type, identity: start.identity, target: undefined, why: 'undone' })
}

/** After the program of a start has ended by itself, and removed what it had made. */
export const endedStart = (env: Environment, { type, identity }: Pick<Start, 'type' | 'identity'>): Promise<void> =>
  removeTarget(env, { type, identity, target: undefined, why: 'ended' })

/** `ended`: what the shim has started. False when that was the target. */
export async function leftForeground(env: Environment, directory: string, ended: ExitStatus | undefined): Promise<boolean> {
  const start = await readStart(directory)
  if (start?.stays !== true) return false
  await (ended?.signal === undefined ? endedStart(env, start) : undoStart(env, start, directory))
  return true
}

/** Whether what has that name now is what came of it: begun soon after. */
async function cameOf(env: Environment, { type, identity, at }: Start): Promise<boolean> {
  const resolve = await env.runtimes.verb(type, 'resolve')
  const live = await resolve(hostFor(env, AbortSignal.timeout(REMOVE_MS)), identity).catch(() => undefined)
  const begunAt = live && Number(live.startTicks) * TICK_MS
  return begunAt === undefined || (begunAt > at - TICK_MS && begunAt < at + BEGUN_MS)
}

/** What came of a start whose maker is dead, and which has left no word of success. */
export async function undoLeft(env: Environment, directory: string): Promise<void> {
  const start = directory === '' ? undefined : await readStart(directory)
  if (!start || (start.maker !== makerName(await env.self()) && (await hasMaker(start.maker)))) return
  await endMakers(env, directory)
  if (!(await cameOf(env, start))) return
  env.log.info({ type: start.type, ...start.identity }, 'a start that was broken off is undone')
  await undoStart(env, start, directory)
}

/** Whether somebody is still at it. */
export async function isBeingStarted(directory: string): Promise<boolean> {
  const start = await readStart(directory)
  return start !== undefined && (await hasMaker(start.maker))
}

/** What was started without a job, by who is dead: waits for its end, and removes what is left then. */
export async function outlive(env: Environment, directory: string, { target, shim }: ShimState): Promise<void> {
  const start = await readStart(directory)
  if (start?.stays === true) {
    await processes.waitExit(target)
    const end = await readShimExit(directory)
    if (end) await leftForeground(env, directory, end.exit)
    else await undoLeft(env, directory)
  }
  await processes.waitExit(shim)
  if (start?.stays === false) await removeTarget(env, { type: start.type, target, identity: start.identity, why: 'ended' })
}

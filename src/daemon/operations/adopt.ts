/**
 * `adopt`: what a starting daemon finds of the one before it. Jobs with a shim are known by its files, others by PID, start time and boot;
 * what ended meanwhile gets its true end. A job that was being started or restored is what its shim says it became.
 */
import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { CedanaError } from '../../plugins/contract/errors.js'
import { removeDirectory } from '../host/mounts.js'
import * as processes from '../host/processes.js'
import { readShimExit, readShimState, ShimConnection, type ShimState } from '../host/shim.js'
import type { JobRecord } from '../jobs/job.js'
import { targetOf } from '../jobs/table.js'
import { rememberedExit, removeRemains } from './program.js'
import { ensureDirectories, type Environment, hasMaker, jobsDirectory, workDirectories } from './environment.js'
import { isBeingStarted, outlive, undoLeft } from './starts.js'

/** How long a shim that an interrupted daemon started may take to listen. */
const SHIM_LISTEN_MS = 500
/** How long the daemon's start waits for what a shim is still making. */
const SHIM_START_MS = 5000

/** What the shim of the job says, once it has made the job or given it up; undefined when there is none (any more). */
async function shimState(job: JobRecord): Promise<ShimState | undefined> {
  if (job.directory === '') return undefined
  for (const started = Date.now(); ; await sleep(20)) {
    const state = await readShimState(job.directory)
    if (state || !existsSync(job.directory)) return state
    const connection = await ShimConnection.open(job.directory).catch(() => undefined)
    if (connection) return answer(connection, job.directory)
    if (Date.now() - started > SHIM_LISTEN_MS) return readShimState(job.directory)
  }
}

/** A shim that is still at work answers when it is done, and hangs up when nothing came of it. */
async function answer(connection: ShimConnection, directory: string): Promise<ShimState | undefined> {
  try {
    return (await connection.status()).state
  } catch {
    return await readShimState(directory)
  } finally {
    connection.close()
  }
}

/** A launcher may take longer than the daemon's start should: its job is then left to it, and adopted when it is known what became of it. */
async function adoptJob(env: Environment, job: JobRecord): Promise<void> {
  const told = shimState(job)
  const late = Symbol('late')
  const state = await Promise.race([told, sleep(SHIM_START_MS, late, { ref: false })])
  if (state !== late) {
    await adoptAs(env, job, state)
    return
  }
  env.log.info({ job: job.jid }, 'a job is still being started')
  const lock = env.locks.take(job.jid, job.state === 'restoring' ? 'restore' : 'run')
  void told
    .then((atLast) => adoptAs(env, job, atLast))
    .catch(notAdopted(env, job))
    .finally(() => {
      lock[Symbol.dispose]()
    })
}

const notAdopted =
  (env: Environment, job: JobRecord) =>
  (thrown: unknown): void => {
    env.log.warn({ job: job.jid, err: CedanaError.from(thrown).message }, 'a job could not be adopted')
  }

async function adoptAs(env: Environment, job: JobRecord, state: ShimState | undefined): Promise<void> {
  const known = state?.target ?? targetOf(job)
  const changes = { pid: known.pid, startTicks: known.startTicks, bootId: known.bootId } as const
  const end = state ? await readShimExit(job.directory) : undefined
  const exit = end?.exit
  if (!end && known.pid > 0 && (await processes.isAlive(known))) {
    env.jobs.watch(env.jobs.update(job.jid, { ...changes, state: 'running', startedAt: state?.startedAt ?? job.startedAt }))
    env.log.info({ job: job.jid, pid: known.pid }, 'job adopted')
    return
  }
  if (!state) await undoLeft(env, job.directory)
  if (!state && job.state === 'starting') {
    // It never started, and its `run` was never answered.
    env.jobs.remove(job.jid)
  } else {
    const latest = env.checkpoints.ofJob(job.jid)[0]
    const wasDumped = latest !== undefined && latest.time >= job.startedAt && exit?.signal === 9
    const reason = job.state === 'restoring' && !state ? 'dumped' : wasDumped ? 'dumped' : end ? 'exited' : 'lost'
    const ended = exit ?? (known.pid > 0 ? await rememberedExit(env, { ...job, ...changes }) : undefined)
    await removeRemains(env, { ...job, ...changes }, reason)
    env.jobs.update(job.jid, { ...changes, state: 'ended', endReason: reason, exit: ended, exitedAt: Date.now(), frozen: false })
    env.log.info({ job: job.jid, reason, ...ended }, 'job ended while no daemon was running')
  }
  await removeAfterShim(job.directory)
}

async function removeAfterShim(directory: string): Promise<void> {
  if (directory === '') return
  const state = await readShimState(directory).catch(() => undefined)
  if (state?.shim.bootId === processes.bootId) void processes.waitExit(state.shim).then(() => removeDirectory(directory))
  else await removeDirectory(directory)
}

async function removeStray(env: Environment, directory: string): Promise<void> {
  const state = await readShimState(directory).catch(() => undefined)
  if (!state) await undoLeft(env, directory)
  if (state?.shim.bootId === processes.bootId) void outlive(env, directory, state).then(() => removeDirectory(directory))
  else await removeDirectory(directory)
}

/** What dead processes of cedana have left: directories of restores that made no job, of jobs that are no longer known, and of operations. */
async function removeStrays(env: Environment): Promise<void> {
  const known = new Set(env.jobs.all().map((job) => job.jid))
  for (const name of await readdir(jobsDirectory(env))) {
    const directory = join(jobsDirectory(env), name)
    if (!known.has(name) && !(await hasMaker(name)) && !(await isBeingStarted(directory))) await removeStray(env, directory)
  }
  for (const name of await readdir(workDirectories(env))) {
    if (!(await hasMaker(name))) await removeDirectory(join(workDirectories(env), name))
  }
}

export async function adoptAll(env: Environment): Promise<void> {
  await ensureDirectories(env)
  const unfinished = env.jobs.all().filter((job) => job.state !== 'ended' && job.hostId === env.jobs.hostId)
  await Promise.all(unfinished.map((job) => adoptJob(env, job).catch(notAdopted(env, job))))
  await removeStrays(env)
}

/**
 * `adopt`: what a starting daemon finds of the one before it. Jobs with a shim are known by its files, others by PID, start time and boot;
 * what ended meanwhile gets its true end. A job that was being started or restored is what its shim says it became.
 */
import { existsSync } from 'node:fs'
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { CedanaError } from '../../plugins/contract/errors.js'
import * as processes from '../host/processes.js'
import { readShimExit, readShimState, ShimConnection, type ShimState } from '../host/shim.js'
import type { JobRecord } from '../jobs/job.js'
import { targetOf } from '../jobs/table.js'
import { ensureDirectories, type Environment, jobsDirectory, workDirectories } from './environment.js'

/** How long a shim that an interrupted daemon started may take to listen, and then to say what became of the job. */
const SHIM_LISTEN_MS = 500
const SHIM_START_MS = 5000

/** What the shim of the job says, waiting for one that is still at work; undefined when there is none (any more). */
async function shimState(job: JobRecord): Promise<ShimState | undefined> {
  if (job.directory === '') return undefined
  const started = Date.now()
  for (let listened = false; ; await sleep(20)) {
    const state = await readShimState(job.directory)
    const waited = Date.now() - started
    if (state || !existsSync(job.directory) || waited > SHIM_START_MS) return state
    const connection = await ShimConnection.open(job.directory).catch(() => undefined)
    connection?.close()
    if (!connection && (listened || waited > SHIM_LISTEN_MS)) return readShimState(job.directory)
    listened ||= connection !== undefined
  }
}

async function adoptJob(env: Environment, job: JobRecord): Promise<void> {
  const state = await shimState(job)
  const known = state?.target ?? targetOf(job)
  const changes = { pid: known.pid, startTicks: known.startTicks, bootId: known.bootId } as const
  const exit = state ? (await readShimExit(job.directory))?.exit : undefined
  if (!exit && known.pid > 0 && (await processes.isAlive(known))) {
    env.jobs.watch(env.jobs.update(job.jid, { ...changes, state: 'running', startedAt: state?.startedAt ?? job.startedAt }))
    env.log.info({ job: job.jid, pid: known.pid }, 'job adopted')
    return
  }
  if (!state && job.state === 'starting') {
    // It never started, and its `run` was never answered.
    env.jobs.remove(job.jid)
  } else {
    const latest = env.checkpoints.ofJob(job.jid)[0]
    const wasDumped = latest !== undefined && latest.time >= job.startedAt && exit?.signal === 9
    const reason = job.state === 'restoring' && !state ? 'dumped' : wasDumped ? 'dumped' : exit ? 'exited' : 'lost'
    env.jobs.update(job.jid, { ...changes, state: 'ended', endReason: reason, exit, exitedAt: Date.now(), frozen: false })
    env.log.info({ job: job.jid, reason, ...exit }, 'job ended while no daemon was running')
  }
  await removeAfterShim(job.directory)
}

async function removeAfterShim(directory: string): Promise<void> {
  if (directory === '') return
  const state = await readShimState(directory).catch(() => undefined)
  if (state?.shim.bootId === processes.bootId)
    void processes.waitExit(state.shim).then(() => rm(directory, { recursive: true, force: true }))
  else await rm(directory, { recursive: true, force: true })
}

/** Whether the process that a directory is named for is there. */
async function hasMaker(name: string): Promise<boolean> {
  const [, pid, startTicks] = /(\d+)-(\d+)(?:-[0-9a-f]+)?$/.exec(name) ?? []
  return pid !== undefined && (await processes.briefs([Number(pid)])).get(Number(pid))?.startTicks === startTicks
}

/** What dead processes of cedana have left: directories of restores that made no job, of jobs that are no longer known, and of operations. */
async function removeStrays(env: Environment): Promise<void> {
  const known = new Set(env.jobs.all().map((job) => job.jid))
  for (const name of await readdir(jobsDirectory(env))) {
    if (!known.has(name) && !(await hasMaker(name))) await removeAfterShim(join(jobsDirectory(env), name))
  }
  for (const name of await readdir(workDirectories(env))) {
    if (!(await hasMaker(name))) await rm(join(workDirectories(env), name), { recursive: true, force: true })
  }
}

export async function adoptAll(env: Environment): Promise<void> {
  await ensureDirectories(env)
  const unfinished = env.jobs.all().filter((job) => job.state !== 'ended' && job.hostId === env.jobs.hostId)
  await Promise.all(
    unfinished.map((job) =>
      adoptJob(env, job).catch((thrown: unknown) => {
        env.log.warn({ job: job.jid, err: CedanaError.from(thrown).message }, 'a job could not be adopted')
      }),
    ),
  )
  await removeStrays(env)
}

/** Jobs as users see them: list, look, kill, delete. */
import { existsSync } from 'node:fs'
import { CedanaError } from '../../plugins/contract/errors.js'
import { removeDirectory } from '../host/mounts.js'
import * as processes from '../host/processes.js'
import type { CheckpointRecord, JobBrief, JobRecord } from '../jobs/job.js'
import { meantBy } from '../jobs/names.js'
import { statusOf, type JobStatus } from '../jobs/status.js'
import { targetOf } from '../jobs/table.js'
import { isVisible, visiblePart } from './authorize.js'
import { checkpointView } from './checkpoints.js'
import type { Environment } from './environment.js'
import { hostFor } from './host.js'
import { removeTarget } from './starts.js'
import { namedJob } from './target.js'
import type { Call, CheckpointView, JobView, KillRequest, ListJobsRequest } from './verbs.js'

const SIGKILL = 9
/** How long one who looks at a job that has just ended waits to be told how. */
const KNOWN_MS = 5000
const ATTACHABLE = '[Attachable]'

interface Seen<J extends JobBrief> {
  readonly job: J
  readonly status: JobStatus
  readonly attachable: boolean
  readonly latest: { readonly record: CheckpointRecord; readonly count: number } | undefined
}

/** All of the given jobs at once: one look at /proc, one at the database. */
async function seen<J extends JobBrief>(env: Environment, jobs: readonly J[]): Promise<Seen<J>[]> {
  const live = await processes.briefs(jobs.filter((job) => job.state !== 'ended').map((job) => job.pid))
  const latest = env.checkpoints.latestByJob()
  const here = { hostId: env.jobs.hostId, bootId: processes.bootId }
  return jobs.map((job) => {
    const status = statusOf(job, live.get(job.pid), here)
    return { job, status, attachable: status.isRunning && (job.stdio === 'pipe' || job.stdio === 'tty'), latest: latest.get(job.jid) }
  })
}

const logOf = ({ job, attachable }: Seen<JobBrief>): string =>
  attachable ? ATTACHABLE : job.log !== '' && existsSync(job.log) ? job.log : ''

function view(one: Seen<JobRecord>): JobView {
  const { job, status, attachable, latest } = one
  return {
    jid: job.jid,
    type: job.type,
    pid: job.pid,
    status: status.word,
    isRunning: status.isRunning,
    isFrozen: status.isFrozen,
    gpuEnabled: job.gpuEnabled,
    log: logOf(one),
    logPath: job.log,
    attachable,
    tty: job.stdio === 'tty',
    uid: job.owner.uid,
    gid: job.owner.gid,
    createdAt: job.createdAt,
    startedAt: job.startedAt,
    exitedAt: job.exitedAt,
    exit: job.exit,
    endReason: job.endReason,
    latestCheckpoint: latest && checkpointView(latest.record),
    checkpoints: latest?.count ?? 0,
    args: job.args,
    hostId: job.hostId,
    details: job.details,
    state: undefined,
  }
}

/** All members are written out: copying them from an object of empty ones takes V8 several times as long as all the rest of a list. */
function briefView(one: Seen<JobBrief>): JobView {
  const { job, status, latest } = one
  return {
    jid: job.jid,
    type: job.type,
    pid: job.pid,
    status: status.word,
    isRunning: status.isRunning,
    isFrozen: false,
    gpuEnabled: job.gpuEnabled,
    log: logOf(one),
    logPath: '',
    attachable: false,
    tty: false,
    uid: 0,
    gid: 0,
    createdAt: 0,
    startedAt: 0,
    exitedAt: 0,
    exit: undefined,
    endReason: '',
    latestCheckpoint: latest && briefCheckpoint(latest.record),
    checkpoints: 0,
    args: NOTHING,
    hostId: '',
    details: NO_DETAILS,
    state: undefined,
  }
}

const NOTHING: readonly string[] = []
const NO_DETAILS = {}
const briefCheckpoint = ({ time, size }: CheckpointRecord): CheckpointView => ({
  id: '',
  jid: '',
  type: '',
  path: '',
  time,
  size,
  compression: '',
  exists: false,
})

/** By status, then those dumped or started last: what needs attention is at the top. */
function compare(a: Seen<JobBrief>, b: Seen<JobBrief>): number {
  if (a.status.word !== b.status.word) return a.status.word < b.status.word ? 1 : -1
  return (b.latest?.record.time ?? 0) - (a.latest?.record.time ?? 0) || b.job.createdAt - a.job.createdAt
}

export async function listJobs(env: Environment, call: Call, request: ListJobsRequest): Promise<readonly JobView[]> {
  const isWanted = (job: JobBrief): boolean =>
    isVisible(call.caller, job) &&
    (request.allHosts || job.hostId === env.jobs.hostId) &&
    (request.jids.length === 0 || request.jids.includes(job.jid))
  if (request.brief) return (await seen(env, env.jobs.briefs().filter(isWanted))).sort(compare).map(briefView)
  return (await seen(env, env.jobs.all().filter(isWanted))).sort(compare).map(view)
}

async function seenNow(env: Environment, job: JobRecord): Promise<Seen<JobRecord>> {
  const [one] = await seen(env, [job])
  if (!one) throw new CedanaError('BUG', `no view of job ${job.jid}`)
  return one
}

export async function getJob(env: Environment, call: Call, jid: string): Promise<JobView> {
  const job = namedJob(env, call.caller, jid)
  const one = await seenNow(env, job)
  // How it has ended may be for somebody else to say, and known a little later than that it has.
  const isEnding = job.state === 'running' && ['halted', 'zombie'].includes(one.status.word)
  const whole = view(isEnding && (await endsWithin(env, job.jid, KNOWN_MS)) ? await seenNow(env, env.jobs.get(job.jid)) : one)
  if (!whole.isRunning) return whole
  // It may end while it is looked at: then there is no live state to show.
  const state = await processes.inspect(targetOf(job)).catch(() => undefined)
  return { ...whole, state: state && visiblePart(call.caller, state) }
}

/** The jobs a kill or delete names, or all that the caller may touch. Throws NO_SUCH_JOB when there is none. */
function chosen(env: Environment, call: Call, request: { readonly jids: readonly string[]; readonly all: boolean }): readonly JobRecord[] {
  const jobs = env.jobs.all().filter((job) => isVisible(call.caller, job))
  const own = jobs.map(({ jid }) => jid)
  const meant = new Set(request.jids.map((name) => meantBy(name, own)))
  const selected = request.all && request.jids.length === 0 ? jobs : jobs.filter(({ jid }) => meant.has(jid))
  if (selected.length === 0) throw new CedanaError('NO_SUCH_JOB', 'no jobs found')
  return selected
}

async function killOne(env: Environment, call: Call, job: JobRecord, request: KillRequest): Promise<string | undefined> {
  if (job.hostId !== env.jobs.hostId) return `Cannot kill remote job ${job.jid}`
  const target = targetOf(job)
  if (job.state !== 'running' || !(await processes.isAlive(target))) return undefined
  const signal = request.signal === 0 ? SIGKILL : request.signal
  const host = hostFor(env, call.signal)
  const send = async (number: number): Promise<void> => {
    env.jobs.expectEnd(job.jid, 'killed')
    if (env.runtimes.supports(job.type, 'kill')) await (await env.runtimes.verb(job.type, 'kill'))(host, target, number, job.details)
    else if (number === SIGKILL) await processes.killTree(target, number)
    else await processes.killGroup(target, number)
  }
  try {
    await send(signal)
    if (signal !== SIGKILL && request.graceMs === 0) {
      // A signal that the job may survive is not the reason of its end, should that come much later.
      env.jobs.expectEnd(job.jid, undefined)
      return `Killed job ${job.jid}`
    }
    if (signal !== SIGKILL && !(await endsWithin(env, job.jid, request.graceMs))) await send(SIGKILL)
    await endsWithin(env, job.jid, 5000)
    return `Killed job ${job.jid}`
  } catch (thrown) {
    env.jobs.expectEnd(job.jid, undefined)
    return `Failed to kill job ${job.jid}: ${CedanaError.from(thrown).message}`
  }
}

/** Waits for the recorded end of a job. */
export async function endsWithin(env: Environment, jid: string, ms: number): Promise<boolean> {
  const timer = new AbortController()
  const late = new Promise<false>((resolve) => {
    const timeout = setTimeout(() => {
      resolve(false)
    }, ms)
    timer.signal.addEventListener('abort', () => {
      clearTimeout(timeout)
    })
  })
  try {
    return await Promise.race([env.jobs.ended(jid).then(() => true), late])
  } finally {
    timer.abort()
  }
}

export async function killJobs(env: Environment, call: Call, request: KillRequest): Promise<readonly string[]> {
  const messages = await Promise.all(chosen(env, call, request).map((job) => killOne(env, call, job, request)))
  return messages.filter((message) => message !== undefined)
}

export async function deleteJobs(
  env: Environment,
  call: Call,
  request: { jids: readonly string[]; all: boolean },
): Promise<readonly string[]> {
  const messages: string[] = []
  for (const job of chosen(env, call, request)) {
    if (job.hostId !== env.jobs.hostId) {
      messages.push(`Cannot delete remote job ${job.jid}`)
    } else if (job.state !== 'ended' && (await processes.isAlive(targetOf(job)))) {
      messages.push(`Job ${job.jid} is running, please kill it first`)
    } else {
      using _ = env.locks.take(job.jid, 'delete')
      await env.jobs.ended(job.jid)
      env.jobs.remove(job.jid)
      // What a restore would have built on.
      if (job.endReason === 'dumped' && job.directory !== '')
        await removeTarget(env, { type: job.type, target: targetOf(job), identity: job.details, why: 'ended' })
      if (job.directory !== '') await removeDirectory(job.directory)
      messages.push(`Deleted job ${job.jid}`)
    }
  }
  return messages
}

/** Ends every running job that this daemon started or restored; what was only put under management is not ours to end. */
export async function endAll(env: Environment): Promise<void> {
  const running = env.jobs.all().filter((job) => job.state === 'running' && job.directory !== '' && job.hostId === env.jobs.hostId)
  await Promise.all(
    running.map(async (job) => {
      env.jobs.expectEnd(job.jid, 'killed')
      await processes.killTree(targetOf(job), SIGKILL)
      await endsWithin(env, job.jid, 5000)
    }),
  )
}

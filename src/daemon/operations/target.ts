/** Which live tree a request means: a job by id, or whatever the runtime finds under the given options. */
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Host } from '../../plugins/contract/host.js'
import type { Caller, Target } from '../../plugins/contract/job.js'
import type { ParsedOptions } from '../../plugins/contract/options.js'
import type { JobRecord } from '../jobs/job.js'
import { meantBy } from '../jobs/names.js'
import { targetOf } from '../jobs/table.js'
import * as processes from '../host/processes.js'
import { isVisible, mayUseJob } from './authorize.js'
import type { Environment } from './environment.js'
import type { Call, TargetRequest } from './verbs.js'

export interface FoundTarget {
  readonly type: string
  readonly target: Target
  /** The job that it is, whether it was named by id or not. */
  readonly job: JobRecord | undefined
  /** The options of `resolve` that name it. */
  readonly identity: ParsedOptions
  /** What operations on it exclude each other by. */
  readonly lock: string
}

/** The job of that id, or of the random one that begins so. Throws PERMISSION_DENIED, and BAD_OPTIONS where it fits several. */
export function findJob(env: Environment, caller: Caller, name: string): JobRecord | undefined {
  const own = (): readonly string[] => env.jobs.briefs().flatMap((job) => (isVisible(caller, job) ? [job.jid] : []))
  const job = env.jobs.find(name) ?? env.jobs.find(meantBy(name, own()) ?? name)
  if (job) mayUseJob(caller, job)
  return job
}

/** The same. Throws NO_SUCH_JOB too. */
export const namedJob = (env: Environment, caller: Caller, name: string): JobRecord => findJob(env, caller, name) ?? env.jobs.get(name)

/** The job, which must be running. Throws NO_SUCH_JOB, PERMISSION_DENIED, JOB_NOT_RUNNING. */
async function runningJob(env: Environment, call: Call, jid: string): Promise<JobRecord> {
  const job = namedJob(env, call.caller, jid)
  if (job.state !== 'running' || !(await processes.isAlive(targetOf(job)))) {
    throw new CedanaError('JOB_NOT_RUNNING', `job ${job.jid} is not running (status: halted)`)
  }
  return job
}

export async function findTarget(env: Environment, call: Call, host: Host, request: TargetRequest): Promise<FoundTarget> {
  if (request.jid !== '') {
    const job = await runningJob(env, call, request.jid)
    return { type: job.type, target: targetOf(job), job, identity: job.details, lock: job.jid }
  }
  const resolve = await env.runtimes.verb(request.type, 'resolve')
  const identity = await env.runtimes.options(request.type, 'resolve', request.target)
  const target = await resolve(host, identity)
  const job = env.jobs.byTarget(target)
  return { type: request.type, target, job, identity, lock: job?.jid ?? `PID ${target.pid}` }
}

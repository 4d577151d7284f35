/** Which live tree a request means: a job by id, or whatever the runtime finds under the given options. */
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Host } from '../../plugins/contract/host.js'
import type { Target } from '../../plugins/contract/job.js'
import type { ParsedOptions } from '../../plugins/contract/options.js'
import type { JobRecord } from '../jobs/job.js'
import { targetOf } from '../jobs/table.js'
import * as processes from '../host/processes.js'
import { mayUseJob } from './authorize.js'
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

/** The job, which must be running. Throws NO_SUCH_JOB, PERMISSION_DENIED, JOB_NOT_RUNNING. */
async function runningJob(env: Environment, call: Call, jid: string): Promise<JobRecord> {
  const job = env.jobs.get(jid)
  mayUseJob(call.caller, job)
  if (job.state !== 'running' || !(await processes.isAlive(targetOf(job)))) {
    throw new CedanaError('JOB_NOT_RUNNING', `job ${jid} is not running (status: halted)`)
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

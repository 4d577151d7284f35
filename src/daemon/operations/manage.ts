/** `manage`: a process or container that exists (or is about to) becomes a job. It is only watched; nothing about it changes. */
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Caller, Target } from '../../plugins/contract/job.js'
import type { Problem } from '../../plugins/contract/plan.js'
import * as processes from '../host/processes.js'
import type { ProcessOwner } from '../host/processes.js'
import { isKernelThread } from '../images/preflight.js'
import { mayUseTree } from './authorize.js'
import { begin, type Environment, refuseProblems } from './environment.js'
import { checkGpu, chooseJobId, newJob, writePidFile } from './run.js'
import type { Call, ManageRequest, Started } from './verbs.js'

/** Processes whose end would be the end of more than a job. */
function notManageable(root: ProcessOwner): readonly Problem[] {
  const what =
    root.pid === 1
      ? 'the init of this machine'
      : root.pid === process.pid
        ? 'the cedana daemon itself'
        : root.name === 'cedana-shim'
          ? 'a cedana shim'
          : isKernelThread(root)
            ? 'a kernel thread'
            : undefined
  return what === undefined
    ? []
    : [{ severity: 'error', id: 'not-manageable', message: `process ${root.pid} is ${what} and cannot be a job`, pid: root.pid }]
}

/** Its root process; all of the tree must be the caller's. Root's is every tree, so none is looked at: what has just begun is to be a job at once. */
async function usableRoot(caller: Caller, target: Target): Promise<ProcessOwner> {
  if (caller.uid !== 0) mayUseTree(caller, (await processes.inspect(target)).processes)
  return processes.ownerOf(target)
}

export async function manage(env: Environment, call: Call, request: ManageRequest): Promise<Started> {
  const { op, host } = begin(env, 'manage', call, request.timeoutMs)
  await using _ = op

  await op.step('look for gpu', () => checkGpu(env, host, request.gpuEnabled))
  if (request.upcoming && !env.runtimes.supports(request.type, 'upcoming')) {
    throw new CedanaError(
      'BAD_OPTIONS',
      `manage upcoming is not supported for ${request.type === 'process' ? 'linux processes' : request.type}`,
    )
  }
  const identity = await env.runtimes.options(request.type, 'resolve', request.options)
  const jid = chooseJobId(env, request.jid)
  // Of two that wait under the same id one could only fail, and that after its wait.
  await op.step(
    'lock',
    () => {
      env.jobs.mustBeFree(jid)
      return env.locks.take(jid, 'manage')
    },
    {
      always: (lock) => {
        lock[Symbol.dispose]()
      },
    },
  )
  const target = await op.step(request.upcoming ? 'wait for target' : 'find target', async () => {
    const find = await env.runtimes.verb(request.type, request.upcoming ? 'upcoming' : 'resolve')
    if (request.upcoming) env.log.info({ op: 'manage', job: jid, type: request.type, ...identity }, 'waiting for the target')
    return find(host, identity)
  })
  const root = await op.step('inspect', () => usableRoot(call.caller, target))
  refuseProblems(notManageable(root))

  await op.step(
    'record job',
    () => {
      const managed = env.jobs.byTarget(target)
      if (managed) throw new CedanaError('JOB_EXISTS', `PID ${target.pid} is already being managed under job ${managed.jid}`)
      const now = Date.now()
      const job = newJob(env, {
        jid,
        type: request.type,
        state: 'running',
        owner: { uid: root.uid, gid: root.gid, groups: root.groups },
        pid: target.pid,
        startTicks: target.startTicks,
        bootId: target.bootId,
        args: root.args,
        workingDirectory: root.workingDirectory,
        details: identity,
        gpuEnabled: request.gpuEnabled,
        createdAt: now,
        startedAt: now,
      })
      env.jobs.create(job)
      env.jobs.watch(job)
    },
    {
      onFailure: () => {
        env.jobs.remove(jid)
      },
    },
  )
  const messages = await op.step('write pid file', () => writePidFile(request.pidFile, target.pid, call.caller))
  env.log.info({ op: 'manage', job: jid, pid: target.pid }, 'job managed')
  return op.done({ jid, pid: target.pid, messages, steps: op.steps })
}

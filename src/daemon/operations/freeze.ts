/** `freeze` and `unfreeze`: the tree stops, or goes on; nothing is written. */
import { CedanaError } from '../../plugins/contract/errors.js'
import * as processes from '../host/processes.js'
import { isKernelThread } from '../images/preflight.js'
import { mayUseTree } from './authorize.js'
import { begin, type Environment } from './environment.js'
import { findTarget } from './target.js'
import type { Call, TargetRequest } from './verbs.js'

type Verb = 'freeze' | 'unfreeze'

async function change(env: Environment, call: Call, request: TargetRequest, verb: Verb): Promise<{ type: string; pid: number }> {
  const { op, host } = begin(env, verb, call)
  await using _ = op
  const found = await op.step('find target', () => findTarget(env, call, host, request))
  await op.step('lock', () => env.locks.take(found.lock, verb), {
    always: (lock) => {
      lock[Symbol.dispose]()
    },
  })
  const snapshot = await op.step('inspect', () => processes.inspect(found.target))
  mayUseTree(call.caller, snapshot.processes)
  if (snapshot.processes.some((facts) => facts.pid === process.pid)) {
    throw new CedanaError('TARGET_UNFIT', `the tree of process ${found.target.pid} contains the daemon itself`)
  }
  const [root] = snapshot.processes
  if (root && isKernelThread(root)) throw new CedanaError('TARGET_UNFIT', `process ${root.pid} is a kernel thread and cannot be stopped`)
  const opposite: Verb = verb === 'freeze' ? 'unfreeze' : 'freeze'
  const [work, undo] = [await env.runtimes.verb(found.type, verb), await env.runtimes.verb(found.type, opposite)]
  await op.step(verb, () => work(host, found.target, found.identity), {
    onFailure: () => undo(host, found.target, found.identity),
  })
  await op.step('record', () => found.job && env.jobs.update(found.job.jid, { frozen: verb === 'freeze' }))
  return op.done({ type: found.type, pid: found.target.pid })
}

export const freeze = (env: Environment, call: Call, request: TargetRequest): Promise<{ type: string; pid: number }> =>
  change(env, call, request, 'freeze')
export const unfreeze = (env: Environment, call: Call, request: TargetRequest): Promise<{ type: string; pid: number }> =>
  change(env, call, request, 'unfreeze')

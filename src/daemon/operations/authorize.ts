/** Who may act on what: root on everything, everybody else on what runs as themselves. */
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Caller, ProcessFacts } from '../../plugins/contract/job.js'

const denied = (what: string): CedanaError =>
  new CedanaError('PERMISSION_DENIED', `${what} belongs to another user`, { hint: 'only its owner and root may do this' })

export function mayUseJob(caller: Caller, job: { readonly jid: string; readonly owner: { readonly uid: number } }): void {
  if (caller.uid !== 0 && caller.uid !== job.owner.uid) throw denied(`job ${job.jid}`)
}

/** Every process must belong to the caller, with all of its ids: a set-user-id program is not its starter's to dump. */
export function mayUseTree(caller: Caller, tree: readonly ProcessFacts[]): void {
  if (caller.uid === 0) return
  const foreign = tree.find((facts) => facts.uids.some((uid) => uid !== caller.uid))
  if (foreign) throw denied(`process ${foreign.pid} (${foreign.name})`)
}

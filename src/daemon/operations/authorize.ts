/** Who may act on what: root on everything, everybody else on what runs as themselves. */
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Caller, ProcessFacts, Snapshot } from '../../plugins/contract/job.js'

const denied = (what: string): CedanaError =>
  new CedanaError('PERMISSION_DENIED', `${what} belongs to another user`, { hint: 'only its owner and root may do this' })

interface Owned {
  readonly jid: string
  readonly owner: { readonly uid: number }
}

/** Everybody sees their own jobs, root sees all. */
export const isVisible = (caller: Caller, { owner }: Owned): boolean => caller.uid === 0 || owner.uid === caller.uid

export function mayUseJob(caller: Caller, job: Owned): void {
  if (!isVisible(caller, job)) throw denied(`job ${job.jid}`)
}

/** A process of the tree that is not the caller's with all of its ids: a set-user-id program is not its starter's. */
const foreignIn = (caller: Caller, tree: readonly ProcessFacts[]): ProcessFacts | undefined =>
  caller.uid === 0 ? undefined : tree.find((facts) => facts.uids.some((uid) => uid !== caller.uid))

/** Every process must belong to the caller. */
export function mayUseTree(caller: Caller, tree: readonly ProcessFacts[]): void {
  const foreign = foreignIn(caller, tree)
  if (foreign) throw denied(`process ${foreign.pid} (${foreign.name})`)
}

/** Of a tree that is not the caller's, only what /proc shows to everybody: the daemon, being root, sees more. */
export function visiblePart(caller: Caller, snapshot: Snapshot): Snapshot {
  if (!foreignIn(caller, snapshot.processes)) return snapshot
  const hidden = { executable: '', workingDirectory: '', rootDirectory: '', files: [] }
  return { ...snapshot, sockets: [], mounts: [], processes: snapshot.processes.map((facts) => ({ ...facts, ...hidden })) }
}

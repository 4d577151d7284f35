/** A daemon that is root runs the code of plugins: nobody else may have a say in it. */
import { lstat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { CedanaError } from '../../plugins/contract/errors.js'

const WRITABLE_BY_GROUP = 0o020
const WRITABLE_BY_OTHERS = 0o002
const STICKY = 0o1000

/** Throws when somebody but root and this user could change what is at `path` itself. */
export async function refuseOthers(path: string): Promise<void> {
  const { uid, gid, mode } = await lstat(path)
  const owners = [0, process.geteuid?.() ?? 0]
  const refuse = (reason: string, hint: string): never => {
    throw new CedanaError('PERMISSION_DENIED', `${path} ${reason}: a plugin there is not loaded`, { hint })
  }
  if (!owners.includes(uid)) refuse(`belongs to user ${uid}`, `make it root's: chown -R root: ${path}`)
  const others = mode & WRITABLE_BY_OTHERS || (mode & WRITABLE_BY_GROUP && gid !== 0)
  // In a sticky directory (/tmp) others can make entries, but not touch ours.
  if (others && !(mode & STICKY)) refuse('can be written by others than root', `take that right away: chmod go-w ${path}`)
}

/** The same of every directory above. `path`: without links in it. */
export async function refuseOthersAbove(path: string): Promise<void> {
  for (let at = path; ; at = dirname(at)) {
    await refuseOthers(at)
    if (at === dirname(at)) return
  }
}

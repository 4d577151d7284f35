/** What is made under a lease is not collected while that is there, and is soon after unless something refers to it. */
import { randomBytes } from 'node:crypto'
import { type Containerd, found } from './client.js'
import { LeasesService } from './gen/leases.js'
import { onceBack } from './undo.js'

/** By then what was left is collected, whatever became of us. */
const LEASE_MS = 60 * 60 * 1000

export async function leased<T>(
  { containerd, patient }: { readonly containerd: Containerd; readonly patient: Containerd },
  work: () => Promise<T>,
): Promise<T> {
  const id = `cedana-${randomBytes(8).toString('hex')}`
  const expires = new Date(Date.now() + LEASE_MS).toISOString()
  await containerd.call(LeasesService.create, { id, labels: { 'containerd.io/gc.expire': expires } })
  containerd.useLease(id)
  try {
    return await work()
  } finally {
    containerd.useLease(undefined)
    await found(onceBack(() => patient.call(LeasesService.delete, { id })))
  }
}

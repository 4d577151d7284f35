/** What is made under a lease is not collected while that is there, and is soon after unless something refers to it. */
import { randomBytes } from 'node:crypto'
import type { Host } from '../contract/host.js'
import { type Containerd, found } from './client.js'
import { LeasesService } from './gen/leases.js'
import { onceBack } from './undo.js'

/** By then what was left is collected, whatever became of us. */
const LEASE_MS = 60 * 60 * 1000
/** On a lease: the process that has made it. */
const MAKER = 'cedana/maker'

interface Leasing {
  readonly host: Host
  readonly containerd: Containerd
  readonly patient: Containerd
}

/** By the first process: where PIDs are others it is another. */
async function placeOf(host: Host): Promise<string> {
  return (await host.identify(1)).startTicks
}

async function makerHere(host: Host): Promise<string> {
  return `${await placeOf(host)}-${process.pid}-${(await host.identify(process.pid)).startTicks}`
}

/** Of processes of this machine that were killed. */
export async function removeLeftLeases(host: Host, containerd: Containerd): Promise<void> {
  const { leases } = await containerd.call(LeasesService.list, { filters: [`labels.${JSON.stringify(MAKER)}`] })
  const here = await placeOf(host)
  for (const { id, labels } of leases) {
    const [place, pid, startTicks] = (labels[MAKER] ?? '').split('-')
    if (place !== here || (await host.brief(Number(pid)))?.target.startTicks === startTicks) continue
    await found(containerd.call(LeasesService.delete, { id }))
  }
}

export async function leased<T>({ host, containerd, patient }: Leasing, work: () => Promise<T>): Promise<T> {
  await removeLeftLeases(host, containerd)
  const id = `cedana-${randomBytes(8).toString('hex')}`
  const expires = new Date(Date.now() + LEASE_MS).toISOString()
  await containerd.call(LeasesService.create, { id, labels: { 'containerd.io/gc.expire': expires, [MAKER]: await makerHere(host) } })
  containerd.useLease(id)
  try {
    return await work()
  } finally {
    containerd.useLease(undefined)
    await found(onceBack(() => patient.call(LeasesService.delete, { id })))
  }
}

/**
 * What a hook of the GPU's vendor has mounted into a container: device files, the driver's libraries and programs. The bundle says nothing of them (where
 * it does, as after an edit by CDI, they are mounts like any other), so they are known by their names, and found outside by their file systems.
 */
import type { Host } from '../contract/host.js'
import type { Mount, Snapshot } from '../contract/job.js'
import type { Problem } from '../contract/plan.js'
import { hostMounts, sourceOf } from './host-mounts.js'

const OF_DRIVER = /nvidia|libcuda|libnv|\/etc\/vulkan/

export interface DriverMount {
  /** In the container. */
  readonly path: string
  /** On the host. */
  readonly source: string
}

/** `known`: mounts that the runtime makes again itself, and those of its own. */
export async function driverMounts(host: Host, { mounts }: Snapshot, known: (mount: Mount) => boolean): Promise<readonly DriverMount[]> {
  const found = mounts.filter((mount) => mount.path !== '/' && OF_DRIVER.test(mount.path) && !known(mount))
  if (found.length === 0) return []
  const outside = await hostMounts(host)
  return found.flatMap((mount) => {
    const source = sourceOf(mount, outside)
    return source === undefined ? [] : [{ path: mount.path, source }]
  })
}

/** Key and place of each for CRIU: at a dump, and at the restore. */
export const externalAtDump = (mounts: readonly DriverMount[]): readonly string[] => mounts.map(({ path }) => `mnt[${path}]:${path}`)
export const externalAtRestore = (mounts: readonly DriverMount[]): readonly string[] =>
  mounts.map(({ path, source }) => `mnt[${path}]:${source}`)

export async function driverProblems(host: Host, mounts: readonly DriverMount[]): Promise<readonly Problem[]> {
  const there = await Promise.all(mounts.map(({ source }) => host.exists(source)))
  return mounts.flatMap(({ path, source }, index): Problem[] => {
    if (there[index] === true) return []
    const message = `${source}, which the container has mounted at ${path}, does not exist`
    return [{ severity: 'error', id: 'driver-mount-missing', message, hint: 'restore it where the same driver of the GPU is installed' }]
  })
}

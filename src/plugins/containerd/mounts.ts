/** What is mounted on this machine, as far as containerd is concerned. */
import { basename, dirname } from 'node:path'
import type { Host } from '../contract/host.js'

interface HostMount {
  readonly point: string
  readonly filesystem: string
}

/** None of those that matter here has a blank in its name, which would be written otherwise. */
export async function mounted(host: Host): Promise<readonly HostMount[]> {
  return ((await host.readText('/proc/self/mountinfo')) ?? '').split('\n').flatMap((line) => {
    const [place = '', kind = ''] = line.split(' - ')
    const point = place.split(' ')[4]
    return point === undefined ? [] : [{ point, filesystem: kind.split(' ')[0] ?? '' }]
  })
}

export const mountedBelow = async (host: Host, directory: string): Promise<readonly string[]> =>
  (await mounted(host)).flatMap(({ point }) => (point.startsWith(`${directory}/`) ? [point] : []))

/**
 * Bundles, by the root file systems that are mounted in them: of every containerd that has a namespace of that name. And which container each is of.
 */
export async function bundlesIn(host: Host, namespace: string): Promise<readonly (readonly [bundle: string, id: string])[]> {
  const bundles = (await mounted(host)).flatMap(({ point }) => (basename(point) === 'rootfs' ? [dirname(point)] : []))
  return bundles.filter((bundle) => basename(dirname(bundle)) === namespace).map((bundle) => [bundle, basename(bundle)])
}

/** What is mounted on the host, as the daemon sees it. */
import type { Host } from '../contract/host.js'
import type { Mount } from '../contract/job.js'

export interface HostMount extends Pick<Mount, 'device' | 'root' | 'path' | 'filesystem'> {
  /** Of the file system itself: of a hierarchy of cgroups, its controllers. */
  readonly options: readonly string[]
}

export async function hostMounts(host: Host): Promise<readonly HostMount[]> {
  const mountinfo = (await host.readText('/proc/self/mountinfo')) ?? ''
  return mountinfo.split('\n').flatMap((line) => {
    const [place = '', kind = ''] = line.split(' - ')
    const [, , device = '', root = '', path = ''] = place.split(' ')
    const [filesystem = '', , options = ''] = kind.split(' ')
    return path === '' ? [] : [{ device, root: unescaped(root), path: unescaped(path), filesystem, options: options.split(',') }]
  })
}
const unescaped = (text: string): string => text.replace(/\\(\d{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)))

/** The file on the host that is the root of this mount, by way of one of `outside`. */
export function sourceOf({ device, root }: Pick<Mount, 'device' | 'root'>, outside: readonly HostMount[]): string | undefined {
  const isBelow = (one: HostMount): boolean => one.root === '/' || root === one.root || root.startsWith(`${one.root}/`)
  const nearest = outside
    .filter((one) => one.device === device && isBelow(one))
    .reduce<HostMount | undefined>((best, one) => (best && best.root.length >= one.root.length ? best : one), undefined)
  if (!nearest) return undefined
  const path = `${nearest.path}/${root.slice(nearest.root.length)}`.replaceAll(/\/+/g, '/')
  return path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path
}

/** Where a file of the host lies: as a mount of it would say. */
export function placeOf(path: string, mounts: readonly HostMount[]): Pick<Mount, 'device' | 'root'> | undefined {
  const holds = (one: HostMount): boolean => one.path === '/' || path === one.path || path.startsWith(`${one.path}/`)
  const nearest = mounts
    .filter(holds)
    .reduce<HostMount | undefined>((best, one) => (best && best.path.length > one.path.length ? best : one), undefined)
  if (!nearest) return undefined
  const below = nearest.path === '/' ? path : path.slice(nearest.path.length)
  return { device: nearest.device, root: nearest.root === '/' ? below || '/' : `${nearest.root}${below}` }
}

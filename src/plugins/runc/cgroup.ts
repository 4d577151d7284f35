/** The cgroups of a container: its freezer, and where the runtime makes them. */
import { dirname } from 'node:path'
import type { Host } from '../contract/host.js'
import type { Target } from '../contract/job.js'
import { hostMounts } from './host-mounts.js'

const CGROUPS = '/sys/fs/cgroup'

interface Row {
  /** Joined by commas; none: version 2. */
  readonly controllers: string
  readonly path: string
}

/** `lines`: of /proc/PID/cgroup. */
const rowsOf = (lines: readonly string[]): readonly Row[] =>
  lines.flatMap((line) => {
    const [, controllers = '', path = '/'] = /^\d+:([^:]*):(.*)$/.exec(line) ?? []
    return line === '' ? [] : [{ controllers, path }]
  })

/** Undefined when it is in the cgroup of everybody. */
export function freezerOf(lines: readonly string[]): string | undefined {
  const rows = rowsOf(lines)
  const pathOf = (isOne: (controllers: string) => boolean): string => rows.find(({ controllers }) => isOne(controllers))?.path ?? '/'
  // Where version 2 is what the runtime sees, hierarchies of version 1 may be left, and everybody is at their root.
  const version1 = pathOf((controllers) => controllers.split(',').includes('freezer'))
  if (version1 !== '/') return `${CGROUPS}/freezer${version1}`
  const version2 = pathOf((controllers) => controllers === '')
  return version2 === '/' ? undefined : `${CGROUPS}${version2}`
}

export async function isFrozen(host: Host, freezer: string): Promise<boolean> {
  const version1 = await host.readText(`${freezer}/freezer.state`)
  if (version1 !== undefined) return version1.trim() !== 'THAWED'
  return (await host.readText(`${freezer}/cgroup.freeze`))?.trim() === '1'
}

export interface Configured {
  readonly id: string
  readonly isCrun: boolean
  /** `cgroupsPath` of the configuration. */
  readonly path: string
}

/** `a-b.slice` lies in `a.slice`. */
function slicePath(slice: string): string {
  const words = slice
    .replace(/\.slice$/, '')
    .split('-')
    .filter(Boolean)
  return words.map((_, index) => `/${words.slice(0, index + 1).join('-')}.slice`).join('')
}

/** Of systemd's unit: a scope, unless it is called a slice itself. */
function systemdPath({ id, isCrun, path }: Configured): string {
  const [slice = '', prefix = '', name = ''] = path === '' ? ['', isCrun ? 'crun' : 'runc', id] : path.split(':')
  const unit = name.endsWith('.slice') ? name : isCrun && prefix === '' ? `${name}.scope` : `${prefix}-${name}.scope`
  return `${slicePath(slice === '' ? 'system.slice' : slice)}/${unit}`
}

/** `own`: the path of who calls the runtime, to which runc takes a relative one; in version 2, where a cgroup has either members or children, to that above. */
function directPath({ id, isCrun, path }: Configured, own: string, isVersion2: boolean): string {
  const name = path === '' ? id : path
  if (name.startsWith('/')) return name
  return isCrun ? `/${name}` : `${isVersion2 ? dirname(own) : own}/${name}`
}

/**
 * The container's path, where there is version 2 alone: there runc does not tell CRIU that it is another than the one it was dumped from. Undefined
 * elsewhere.
 */
export async function unifiedPath(host: Host, configured: Configured, isForSystemd: boolean): Promise<string | undefined> {
  const isAlone = (await hostMounts(host)).some(({ path, filesystem }) => path === CGROUPS && filesystem === 'cgroup2')
  if (!isAlone || configured.isCrun) return undefined
  if (isForSystemd) return systemdPath(configured)
  const [own] = rowsOf(((await host.readText('/proc/self/cgroup')) ?? '').split('\n')).filter(({ controllers }) => controllers === '')
  return directPath(configured, own?.path ?? '/', true).replaceAll(/\/+/g, '/')
}

/** Directories in which the runtime makes the container's cgroups, by whichever of its drivers; they need not be there. */
export async function configuredCgroups(host: Host, configured: Configured): Promise<readonly string[]> {
  const own = rowsOf(((await host.readText('/proc/self/cgroup')) ?? '').split('\n'))
  const isForSystemd = /^[^/]*:[^/]*:[^/]+$/.test(configured.path)
  return (await hostMounts(host)).flatMap(({ path: mount, filesystem, options }) => {
    if (filesystem !== 'cgroup' && filesystem !== 'cgroup2') return []
    const isVersion2 = filesystem === 'cgroup2'
    const row = own.find(({ controllers }) =>
      isVersion2 ? controllers === '' : controllers !== '' && controllers.split(',').every((one) => options.includes(one)),
    )
    const paths = [
      ...(isForSystemd ? [] : [directPath(configured, row?.path ?? '/', isVersion2)]),
      ...(isForSystemd || configured.path === '' ? [systemdPath(configured)] : []),
    ]
    // What is everybody's is nobody's to remove.
    return paths.map((path) => path.replaceAll(/\/+/g, '/')).flatMap((path) => (path === '/' ? [] : [`${mount}${path}`]))
  })
}

/** Who is there, in the order of their PIDs. */
export async function membersOf(host: Host, directories: readonly string[]): Promise<readonly Target[]> {
  const lists = await Promise.all(directories.map((path) => host.readText(`${path}/cgroup.procs`)))
  const pids = new Set(lists.flatMap((list) => (list ?? '').split('\n').filter(Boolean).map(Number)))
  const members = await Promise.all([...pids].sort((a, b) => a - b).map((pid) => host.identify(pid).catch(() => undefined)))
  return members.filter((member) => member !== undefined)
}

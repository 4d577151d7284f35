/** The freezer of a container: its directory, and what is in it. */
import type { Host } from '../contract/host.js'

const CGROUPS = '/sys/fs/cgroup'

/** `lines`: of /proc/PID/cgroup. Undefined when it is in the cgroup of everybody. */
export function freezerOf(lines: readonly string[]): string | undefined {
  const rows = lines.map((line) => /^\d+:([^:]*):(.*)$/.exec(line)).filter((row) => row !== null)
  const pathOf = (isOne: (controllers: string) => boolean): string => rows.find(([, controllers = '']) => isOne(controllers))?.[2] ?? '/'
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

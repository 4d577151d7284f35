/** The freezer of a container: its directory, and what is in it. */
import type { Host } from '../contract/host.js'

const CGROUPS = '/sys/fs/cgroup'

/** `lines`: of /proc/PID/cgroup. Undefined when it is in the cgroup of everybody. */
export function freezerOf(lines: readonly string[]): string | undefined {
  const rows = lines.map((line) => /^\d+:([^:]*):(.*)$/.exec(line)).filter((row) => row !== null)
  const version1 = rows.find(([, controllers = '']) => controllers.split(',').includes('freezer'))
  const version2 = rows.find(([, controllers]) => controllers === '')
  const path = (version1 ?? version2)?.[2]
  if (path === undefined || path === '/') return undefined
  return version1 ? `${CGROUPS}/freezer${path}` : `${CGROUPS}${path}`
}

export async function isFrozen(host: Host, freezer: string): Promise<boolean> {
  const version1 = await host.readText(`${freezer}/freezer.state`)
  if (version1 !== undefined) return version1.trim() !== 'THAWED'
  return (await host.readText(`${freezer}/cgroup.freeze`))?.trim() === '1'
}

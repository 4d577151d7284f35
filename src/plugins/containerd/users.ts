/** Who a container is to run as: by the user and group files of its root file system. */
import { CedanaError } from '../contract/errors.js'
import type { Host } from '../contract/host.js'
import type { Mount } from './gen/types.js'

interface ContainerUser {
  readonly uid: number
  readonly gid: number
  readonly additionalGids: readonly number[]
}

/** Directories of the layers of a root file system that is not mounted, the topmost first. */
export function layersOf(mounts: readonly Mount[]): readonly string[] {
  const [mount] = mounts
  if (!mount) return []
  const option = (name: string): readonly string[] =>
    (mount.options.find((one) => one.startsWith(`${name}=`)) ?? '')
      .slice(name.length + 1)
      .split(':')
      .filter(Boolean)
  return mount.type === 'overlay' ? [...option('upperdir'), ...option('lowerdir')] : [mount.source]
}

async function readFirst(host: Host, layers: readonly string[], path: string): Promise<string> {
  for (const layer of layers) {
    const text = await host.readText(`${layer}${path}`).catch(() => undefined)
    if (text !== undefined) return text
  }
  return ''
}

const rowsOf = (text: string): string[][] =>
  text
    .split('\n')
    .filter(Boolean)
    .map((line) => line.split(':'))

/** `user`: `name`, `name:group`, or numbers in place of names, as in the config of an image. */
export async function userOf(host: Host, mounts: readonly Mount[], user: string): Promise<ContainerUser> {
  if (user === '') return { uid: 0, gid: 0, additionalGids: [] }
  const layers = layersOf(mounts)
  const [users, groups] = [rowsOf(await readFirst(host, layers, '/etc/passwd')), rowsOf(await readFirst(host, layers, '/etc/group'))]
  const [name = '', group = ''] = user.split(':')
  const row = users.find((one) => one[0] === name || one[2] === name)
  const uid = number(name) ?? number(row?.[2])
  const gid = group === '' ? (number(row?.[3]) ?? 0) : (number(group) ?? number(groups.find((one) => one[0] === group)?.[2]))
  if (uid === undefined || gid === undefined)
    throw new CedanaError('HOST_UNFIT', `user ${user} of the image is not in its root file system`)
  const additional = group === '' ? groups.filter((one) => row !== undefined && (one[3] ?? '').split(',').includes(row[0] ?? '')) : []
  return { uid, gid, additionalGids: additional.flatMap((one) => number(one[2]) ?? []) }
}

const number = (text: string | undefined): number | undefined => (text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined)

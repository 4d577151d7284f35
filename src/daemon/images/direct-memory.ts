/**
 * Memory that is not restored by CRIU: where a checkpoint has much of it, its pages are written into the built tree by ourselves, by several threads
 * and straight from where they are read or unpacked (addon/stream/memory-writer). CRIU, which has one thread for each process and wants files, gets
 * images of the rest.
 */
import { isPages, MM, PSTREE, readImage } from './criu-images.js'
import type { Files, ImageFile, ImageSource, MemoryPlan } from './files.js'

/** Less is not worth a directory of its own. */
export const WORTHWHILE_BYTES = 16 << 20
/** Of what CRIU gets copies of, in memory. */
const MAX_REST_BYTES = 64 << 20

const PSTREE_IMAGE = 'pstree.img'
const PAGEMAP = /^pagemap-(\d+)\.img$/

const PROT_WRITE = 2
const PROT_EXEC = 4
const MAP_ANONYMOUS = 0x20
const MAP_GROWSDOWN = 0x100
const MAP_HUGETLB = 0x40000
/** CRIU's VMA_AREA_*. */
const AREA_REGULAR = 1 << 0
const AREA_HEAP = 1 << 5
const AREA_ANON_PRIVATE = 1 << 9

interface Area {
  readonly start: number
  readonly end: number
  readonly protection: number
  readonly flags: number
  readonly status: number
}

/** Written from outside as from inside; and what its process has there after the restore is what it had before. */
const isDirect = ({ protection, flags, status }: Area): boolean =>
  (status & ~AREA_HEAP) === (AREA_REGULAR | AREA_ANON_PRIVATE) &&
  (flags & MAP_ANONYMOUS) !== 0 &&
  (flags & (MAP_GROWSDOWN | MAP_HUGETLB)) === 0 &&
  (protection & PROT_WRITE) !== 0 &&
  (protection & PROT_EXEC) === 0

export interface DirectMemory {
  readonly plans: readonly MemoryPlan[]
  /** In place of images of the same name. */
  readonly pagemaps: ReadonlyMap<string, Uint8Array>
}

/** Undefined: not worth it, or not understood. `isCopied`: what CRIU gets is copied for it, and would be used where it is otherwise. */
export async function directMemory(
  files: Files,
  source: ImageSource,
  { images, isCopied }: { readonly images: readonly ImageFile[]; readonly isCopied: boolean },
): Promise<DirectMemory | undefined> {
  const sum = (names: (name: string) => boolean): number =>
    images.filter(({ name }) => names(name)).reduce((bytes, { size }) => bytes + size, 0)
  const pages = sum(isPages)
  const others = sum((name) => !isPages(name))
  if (isCopied && others > MAX_REST_BYTES) return undefined
  const pids = images.flatMap(({ name }) => PAGEMAP.exec(name)?.[1] ?? [])
  const contents = await source.read([PSTREE_IMAGE, ...pids.flatMap((pid) => [pagemapOf(pid), mmOf(pid)])])
  const tree = contents.get(PSTREE_IMAGE)
  if (!tree) return undefined
  const areas = new Map(
    pids.map((pid) => {
      const mm = contents.get(mmOf(pid))
      return [Number(pid), mm ? readImage(MM, mmOf(pid), mm).flatMap((one) => one.areas) : []] as const
    }),
  )
  const shared = inherited(readImage(PSTREE, PSTREE_IMAGE, tree), areas)
  const found = pids.flatMap((pid) => {
    const pagemap = contents.get(pagemapOf(pid))
    const ranges = (areas.get(Number(pid)) ?? []).filter((area) => isDirect(area) && !shared.has(keyOf(area)))
    const plan =
      pagemap &&
      files.planMemory(
        Number(pid),
        pagemap,
        ranges.flatMap(({ start, end }) => [start, end]),
      )
    return plan && plan.size > plan.restSize ? [{ pid, plan }] : []
  })
  const direct = found.reduce((bytes, { plan }) => bytes + plan.size - plan.restSize, 0)
  if (direct < WORTHWHILE_BYTES || pages - direct > MAX_REST_BYTES) return undefined
  return {
    plans: found.map(({ plan }) => plan),
    pagemaps: new Map(found.map(({ pid, plan }) => [pagemapOf(pid), plan.restPagemap])),
  }
}

const pagemapOf = (pid: string): string => `pagemap-${pid}.img`
const mmOf = (pid: string): string => `mm-${pid}.img`
const keyOf = ({ start, end }: Area): string => `${start}-${end}`

/** What a process may have from its parent: pages that they share until one of them writes, which CRIU restores so. */
function inherited(
  tree: readonly { readonly pid: number; readonly parent: number }[],
  areas: ReadonlyMap<number, readonly Area[]>,
): ReadonlySet<string> {
  const shared = new Set<string>()
  for (const { pid, parent } of tree) {
    const above = new Set(areas.get(parent)?.map(keyOf))
    for (const area of areas.get(pid) ?? []) if (above.has(keyOf(area))) shared.add(keyOf(area))
  }
  return shared
}

/** How the memory of a packer is shared out. */
import { CedanaError } from '../../plugins/contract/errors.js'

/** As the addon's buffers are. */
const BLOCK = 4 << 20
/** Two that fill with what comes, two that wait for the disk. */
const SHARED_BLOCKS = 4

interface Wanted {
  readonly memoryBytes: number
  /** Archives count as one. */
  readonly outputs: number
  readonly threads: number
  /** What memory cannot hold waits on disk, and each thread reads it back into a block of its own. */
  readonly spills: boolean
}

/** As many threads as there is memory for, at most those wanted. Throws when one is too many. */
export function packThreads({ memoryBytes, outputs, threads, spills }: Wanted): number {
  const fixed = (outputs + SHARED_BLOCKS) * BLOCK
  const each = (spills ? 2 : 1) * BLOCK
  const fitting = Math.floor((memoryBytes - fixed) / each)
  if (fitting >= 1) return Math.min(fitting, threads)
  const mebibytes = (bytes: number): number => Math.ceil(bytes / 2 ** 20)
  const message = `${outputs} streams take ${mebibytes(fixed + each)} MiB of memory, and checkpoint.memory_limit_mb is ${mebibytes(memoryBytes)}`
  throw new CedanaError('BAD_OPTIONS', message, { hint: 'raise the limit, or choose fewer --streams' })
}

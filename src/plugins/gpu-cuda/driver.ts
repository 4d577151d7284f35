/** Whether the driver can make checkpoints at all. */
import type { CudaFacts } from '../contract/cuda.js'
import { CedanaError } from '../contract/errors.js'
import type { Host } from '../contract/host.js'

/** CUDA 12.8: driver 570, the first with the calls. */
const CHECKPOINTS = 12080
/** CUDA 13.0: driver 580, the first that restores onto other devices. */
const REMAPS = 13000

export const version = (cuda: number): string => `${Math.floor(cuda / 1000)}.${Math.floor((cuda % 1000) / 10)}`
export const canRemap = ({ cudaVersion }: CudaFacts): boolean => cudaVersion >= REMAPS

/** `570.86.15`, or what is known instead. */
export const driverName = ({ driver, cudaVersion }: Pick<CudaFacts, 'driver' | 'cudaVersion'>): string =>
  driver === '' ? `for CUDA ${version(cudaVersion)}` : driver

/** Why not; undefined: it can. */
export const unfit = (facts: CudaFacts): string | undefined =>
  facts.cudaVersion >= CHECKPOINTS && facts.hasCheckpoint
    ? undefined
    : `the NVIDIA driver (${driverName(facts)}) is too old to checkpoint processes: 570 or newer is needed`

/** Throws HOST_UNFIT. */
export async function usableDriver({ cuda }: Host): Promise<CudaFacts> {
  const facts = await cuda.facts()
  const why = unfit(facts)
  if (why !== undefined) throw new CedanaError('HOST_UNFIT', why, { hint: 'install a newer NVIDIA driver' })
  return facts
}

/** What the daemon and its child for CUDA say to each other. */
import type { CudaFacts, CudaPair, CudaProcess, CudaUse } from '../../../addon/native.js'

export interface CudaCalls {
  /** Loads the driver: what cuInit answers. */
  init(): Promise<number>
  facts(): Promise<CudaFacts>
  process(pid: number): Promise<CudaProcess>
  lock(pid: number, timeoutMs: number): Promise<number>
  checkpoint(pid: number): Promise<number>
  restore(pid: number, pairs: CudaPair[]): Promise<number>
  unlock(pid: number): Promise<number>
  uses(): Promise<CudaUse[] | null>
}

export interface CudaCall {
  readonly id: number
  readonly name: keyof CudaCalls
  readonly args: readonly unknown[]
}
/** `error`: the library could not be loaded. */
export type CudaAnswer = { readonly id: number; readonly value: unknown } | { readonly id: number; readonly error: string }

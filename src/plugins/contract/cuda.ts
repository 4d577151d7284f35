/** The NVIDIA driver, as far as checkpoints go. Its calls are made in a process of their own, which is started by the first one. */

/** CUprocessState. */
export const CUDA_STATES = ['running', 'locked', 'checkpointed', 'failed'] as const
export type CudaState = (typeof CUDA_STATES)[number]

/** Of CUresult, those that are met here. */
export const CUDA_RESULTS: Readonly<Record<number, readonly [name: string, meaning: string]>> = {
  1: ['INVALID_VALUE', 'invalid value'],
  2: ['OUT_OF_MEMORY', 'out of memory'],
  3: ['NOT_INITIALIZED', 'not initialised'],
  100: ['NO_DEVICE', 'there is no GPU'],
  101: ['INVALID_DEVICE', 'no such GPU'],
  304: ['OPERATING_SYSTEM', 'a call of the operating system failed'],
  401: ['ILLEGAL_STATE', 'the process is in another state'],
  600: ['NOT_READY', 'work on the GPU goes on'],
  801: ['NOT_SUPPORTED', 'not supported'],
  802: ['SYSTEM_NOT_READY', 'the system is not ready'],
  803: ['SYSTEM_DRIVER_MISMATCH', 'kernel module and library are of different versions'],
  999: ['UNKNOWN', 'unknown error'],
}
export const CUDA_NOT_READY = 600
export const CUDA_NOT_SUPPORTED = 801
export const CUDA_OPERATING_SYSTEM = 304
export const CUDA_UNKNOWN = 999

/** `there is no GPU (CUDA_ERROR_NO_DEVICE, 100)` */
export function cudaError(result: number): string {
  const [name, meaning] = CUDA_RESULTS[result] ?? [undefined, 'error']
  return name === undefined ? `${meaning} ${result} of CUDA` : `${meaning} (CUDA_ERROR_${name}, ${result})`
}

export interface CudaDevice {
  /** 32 hexadecimal digits. */
  readonly uuid: string
  readonly name: string
  readonly totalBytes: number
  /** Of its device file; null when nobody tells. */
  readonly minor: number | null
}
export interface CudaFacts {
  /** Newest CUDA that the driver is for: 12080 is 12.8. */
  readonly cudaVersion: number
  /** `570.86.15`; empty when nobody tells. */
  readonly driver: string
  readonly hasCheckpoint: boolean
  readonly devices: readonly CudaDevice[]
}

/** What a process has on all devices together. */
export interface CudaUse {
  /** Undefined: nobody tells. */
  readonly bytes: number | undefined
  /** A client of the multi-process service. */
  readonly usesMps: boolean
}

/** Answers are numbers of CUresult, 0 for success. Throws HOST_UNFIT when there is no driver, GPU_FAILED when it has hung or died in a call. */
export interface CudaDriver {
  facts(): Promise<CudaFacts>
  /** Undefined: not a process of CUDA, `result` says how the driver puts it. */
  look(pid: number): Promise<{ readonly result: number; readonly state: CudaState | undefined }>
  /** Resolves with NOT_READY (600) when work submitted before takes longer. */
  lock(pid: number, timeoutMs: number): Promise<number>
  /** `bytes`: what it has to copy, as far as is known: how long it may take depends on it. */
  checkpoint(pid: number, bytes: number): Promise<number>
  restore(pid: number, bytes: number, devices: readonly { readonly from: string; readonly to: string }[]): Promise<number>
  unlock(pid: number): Promise<number>
  /** By process; undefined when nobody tells. */
  uses(): Promise<ReadonlyMap<number, CudaUse> | undefined>
}

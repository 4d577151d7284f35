/** The CUDA driver in a child process: started when it is first needed, kept, and started anew when it has died or has been ended for hanging. */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { cudaChildPath } from '../../../addon/index.js'
import { CUDA_STATES, cudaError, type CudaDriver } from '../../plugins/contract/cuda.js'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Config } from '../config.js'
import type { CudaAnswer, CudaCall, CudaCalls } from './cuda-calls.js'

export interface CudaSettings {
  /** Path or name of libcuda.so.1 and of libnvidia-ml.so.1. */
  readonly library: string
  readonly management: string
  /** How long a call may take that copies nothing. */
  readonly callTimeoutMs: number
}

/** A copy that is slower has hung: a tenth of what the oldest PCIe does. */
const SLOWEST_BYTES_PER_MS = 300_000
/** A copy of nobody knows how much. */
const COPY_MS = 900_000
/** The first call of a process loads the driver, which takes seconds with many devices. */
const INIT_MS = 120_000

/** Devices in the order of their numbers, as nvidia-smi has them, and no client of MPS, which a process is by default where that runs. */
const ENVIRONMENT = { CUDA_DEVICE_ORDER: 'PCI_BUS_ID', CUDA_MPS_PIPE_DIRECTORY: '/nonexistent' }

interface Pending {
  readonly resolve: (value: unknown) => void
  readonly reject: (error: CedanaError) => void
}

class Child {
  readonly #process: ChildProcessByStdio<Writable, Readable, null>
  readonly #pending = new Map<number, Pending>()
  #next = 1
  #ended: CedanaError | undefined

  constructor({ library, management }: CudaSettings, onEnd: (child: Child) => void) {
    // In a session of its own: what a terminal sends to the caller is not for it.
    this.#process = spawn(process.execPath, [cudaChildPath, library, management], {
      stdio: ['pipe', 'pipe', 'ignore'],
      env: ENVIRONMENT,
      cwd: '/',
      detached: true,
    })
    const end = (why: string): void => {
      this.#ended ??= new CedanaError('GPU_FAILED', `the CUDA driver ${why}`)
      for (const { reject } of this.#pending.values()) reject(this.#ended)
      this.#pending.clear()
      onEnd(this)
    }
    this.#process.on('error', ({ message }) => end(`could not be started: ${message}`))
    this.#process.on('exit', (_, signal) =>
      end(signal === null ? 'ended in the middle of a call' : `was ended by ${signal} in the middle of a call`),
    )
    this.#process.stdin.on('error', () => undefined)
    createInterface({ input: this.#process.stdout }).on('line', (line) => this.#answered(JSON.parse(line) as CudaAnswer))
  }

  #answered(answer: CudaAnswer): void {
    const pending = this.#pending.get(answer.id)
    this.#pending.delete(answer.id)
    if ('value' in answer) pending?.resolve(answer.value)
    else
      pending?.reject(
        new CedanaError('HOST_UNFIT', `cannot load the CUDA driver: ${answer.error.replace(/^dl\w+ /, '')}`, {
          hint: 'install the NVIDIA driver, or set gpu.cuda_library',
        }),
      )
  }

  call<K extends keyof CudaCalls>(name: K, timeoutMs: number, ...args: Parameters<CudaCalls[K]>): ReturnType<CudaCalls[K]> {
    const made = new Promise((resolve, reject) => {
      if (this.#ended) return reject(this.#ended)
      const id = this.#next++
      const timer = setTimeout(() => {
        this.#ended = new CedanaError('GPU_FAILED', `the CUDA driver has not answered (${name}) for ${timeoutMs / 1000} s`, {
          hint: 'raise gpu.call_timeout_ms if it is only slow',
        })
        this.#process.kill('SIGKILL')
      }, timeoutMs)
      const settle =
        <T>(then: (value: T) => void) =>
        (value: T): void => {
          clearTimeout(timer)
          then(value)
        }
      this.#pending.set(id, { resolve: settle(resolve), reject: settle(reject) })
      this.#process.stdin.write(`${JSON.stringify({ id, name, args } satisfies CudaCall)}\n`)
    })
    return made as ReturnType<CudaCalls[K]>
  }

  end(): void {
    this.#process.stdin.end()
  }
}

export class CudaChild implements CudaDriver {
  #child: Child | undefined
  #initialised: Promise<void> | undefined

  constructor(private readonly settings: CudaSettings) {}

  async #ready(): Promise<Child> {
    if (!this.#child) {
      const child = new Child(this.settings, (ended) => {
        if (this.#child === ended) this.#child = undefined
      })
      this.#child = child
      this.#initialised = child.call('init', INIT_MS).then((result) => {
        if (result === 0) return
        // It would answer the same for ever, where a driver may be there the next time.
        this.close()
        throw new CedanaError('HOST_UNFIT', `the CUDA driver cannot be used: ${cudaError(result)}`, {
          detail: { result },
          hint: 'see whether nvidia-smi works',
        })
      })
    }
    const child = this.#child
    await this.#initialised?.catch((thrown: unknown) => {
      if (this.#child === child) this.close()
      throw thrown
    })
    return child
  }

  async #call<K extends keyof CudaCalls>(
    name: K,
    timeoutMs: number,
    ...args: Parameters<CudaCalls[K]>
  ): Promise<Awaited<ReturnType<CudaCalls[K]>>> {
    return await (await this.#ready()).call(name, timeoutMs, ...args)
  }

  #forCopying(bytes: number): number {
    return bytes === 0 ? COPY_MS : this.settings.callTimeoutMs + bytes / SLOWEST_BYTES_PER_MS
  }

  facts(): ReturnType<CudaDriver['facts']> {
    return this.#call('facts', this.settings.callTimeoutMs)
  }

  async look(pid: number): ReturnType<CudaDriver['look']> {
    const { result, state } = await this.#call('process', this.settings.callTimeoutMs, pid)
    return { result, state: result === 0 ? CUDA_STATES[state] : undefined }
  }

  lock(pid: number, timeoutMs: number): Promise<number> {
    return this.#call('lock', this.settings.callTimeoutMs + timeoutMs, pid, timeoutMs)
  }

  checkpoint(pid: number, bytes: number): Promise<number> {
    return this.#call('checkpoint', this.#forCopying(bytes), pid)
  }

  restore(pid: number, bytes: number, devices: readonly { readonly from: string; readonly to: string }[]): Promise<number> {
    return this.#call('restore', this.#forCopying(bytes), pid, [...devices])
  }

  unlock(pid: number): Promise<number> {
    return this.#call('unlock', this.settings.callTimeoutMs, pid)
  }

  async uses(): ReturnType<CudaDriver['uses']> {
    const rows = await this.#call('uses', this.settings.callTimeoutMs)
    return rows === null ? undefined : new Map(rows.map(({ pid, bytes, usesMps }) => [pid, { bytes: bytes ?? undefined, usesMps }]))
  }

  /** Ends the child; the next call starts another. */
  close(): void {
    this.#child?.end()
    this.#child = undefined
  }
}

export const cudaOf = ({ cuda_library: library, nvml_library: management, call_timeout_ms: callTimeoutMs }: Config['gpu']): CudaChild =>
  new CudaChild({ library, management, callTimeoutMs })

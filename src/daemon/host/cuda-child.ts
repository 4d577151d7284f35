/**
 * The process that calls the CUDA driver: it loads the addon and nothing else, so that a driver that hangs or aborts takes nothing with it. A line of JSON for
 * each call and for each answer, in any order; it ends with its standard input.
 */
import { createInterface } from 'node:readline'
import { native, NativeError } from '../../../addon/index.js'
import type { CudaAnswer, CudaCall, CudaCalls } from './cuda-calls.js'

const [library = '', management = ''] = process.argv.slice(2)
const opened = native.cudaOpen(library, management)
opened.catch(() => undefined)

const calls: { readonly [K in keyof CudaCalls]: (...args: Parameters<CudaCalls[K]>) => ReturnType<CudaCalls[K]> } = {
  init: async () => (await opened).result,
  facts: async () => native.cudaFacts((await opened).cuda),
  process: async (pid) => native.cudaProcess((await opened).cuda, pid),
  lock: async (pid, timeoutMs) => native.cudaLock((await opened).cuda, pid, timeoutMs),
  checkpoint: async (pid) => native.cudaCheckpoint((await opened).cuda, pid),
  restore: async (pid, pairs) => native.cudaRestore((await opened).cuda, pid, pairs),
  unlock: async (pid) => native.cudaUnlock((await opened).cuda, pid),
  uses: async () => native.cudaUses((await opened).cuda),
}

const answer = (message: CudaAnswer): boolean => process.stdout.write(`${JSON.stringify(message)}\n`)

async function carryOut({ id, name, args }: CudaCall): Promise<void> {
  try {
    const call = calls[name] as (...given: unknown[]) => Promise<unknown>
    answer({ id, value: await call(...args) })
  } catch (thrown) {
    answer({ id, error: thrown instanceof NativeError ? thrown.op : String(thrown) })
  }
}

createInterface({ input: process.stdin })
  .on('line', (line) => void carryOut(JSON.parse(line) as CudaCall))
  // Calls may be under way that never end.
  .on('close', () => process.exit(0))

/** The log of a job on standard output: whole, its end, or as it grows. */
import { watch } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { reasonOf } from '../plugins/contract/errors.js'
import { write } from './attach/write.js'
import { CliError } from './exit-codes.js'
import type { World } from './session.js'

export interface LogFlags {
  readonly follow?: boolean
  /** Last lines. */
  readonly tail?: number
}

const CHUNK = 64 * 1024

/** Offset of the last `lines` lines. */
async function tailOffset(file: FileHandle, size: number, lines: number): Promise<number> {
  const buffer = Buffer.alloc(CHUNK)
  let missing = lines + 1
  for (let end = size; end > 0; end -= CHUNK) {
    const start = Math.max(0, end - CHUNK)
    const { bytesRead } = await file.read(buffer, 0, end - start, start)
    for (let index = bytesRead - 1; index >= 0; index--) {
      // The newline that ends the file ends its last line.
      const isLineEnd = buffer[index] === 10 && start + index !== size - 1
      if (isLineEnd && --missing === 1) return start + index + 1
    }
  }
  return 0
}

export async function showLog(
  { stdout, signal }: Pick<World, 'stdout' | 'signal'>,
  path: string,
  { follow, tail }: LogFlags,
): Promise<void> {
  const file = await open(path, 'r').catch((cause: unknown) => {
    throw new CliError(`cannot read the log ${path}: ${reasonOf(cause)}`)
  })
  // Watched before it is read: nothing that is written meanwhile is missed.
  let wake = (): void => {}
  const watcher = follow === true ? watch(path, () => wake()) : undefined
  signal.addEventListener('abort', () => wake(), { once: true })
  try {
    const { size } = await file.stat()
    let position = tail === undefined ? 0 : await tailOffset(file, size, tail)
    const buffer = Buffer.alloc(CHUNK)
    while (!signal.aborted) {
      const changed = new Promise<void>((resolve) => (wake = resolve))
      const { bytesRead } = await file.read(buffer, 0, CHUNK, position)
      position += bytesRead
      if (bytesRead > 0) await write(stdout, Buffer.from(buffer.subarray(0, bytesRead)))
      else if (watcher === undefined) return
      else await changed
    }
  } finally {
    watcher?.close()
    await file.close()
  }
}

import { expect, it } from 'vitest'
import { packThreads } from './pack-memory.js'

const MIB = 2 ** 20
const wanted = { memoryBytes: 512 * MIB, outputs: 2, threads: 16, spills: true }

it('starts the threads that are wanted where memory allows', () => {
  expect(packThreads(wanted)).toBe(16)
})

it('starts fewer where it does not', () => {
  expect(packThreads({ ...wanted, memoryBytes: 64 * MIB })).toBe(5)
  expect(packThreads({ ...wanted, memoryBytes: 64 * MIB, spills: false })).toBe(10)
  expect(packThreads({ ...wanted, memoryBytes: 32 * MIB, outputs: 1 })).toBe(1)
})

it('refuses what not even one has memory for', () => {
  expect(() => packThreads({ ...wanted, memoryBytes: 79 * MIB, outputs: 14 })).toThrow(
    expect.objectContaining({
      code: 'BAD_OPTIONS',
      message: '14 streams take 80 MiB of memory, and checkpoint.memory_limit_mb is 79',
      hint: 'raise the limit, or choose fewer --streams',
    }),
  )
  expect(packThreads({ ...wanted, memoryBytes: 80 * MIB, outputs: 14 })).toBe(1)
})

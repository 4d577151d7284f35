import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  checkName,
  COMPRESSIONS,
  defaultName,
  formatOf,
  parseCompression,
  parseLevel,
  parsePartial,
  partialName,
  requireLocal,
  suffixOf,
  unixNanoseconds,
} from './layout.js'

const maker = { pid: 4711, startTicks: '99887', bootId: '4cea1dbc-fe14-4d91-bec7-6decc3cf3961' }

describe('names', () => {
  it('are those of the reference', () => {
    expect(defaultName('process', undefined, 17n)).toBe('dump-process-17')
    expect(defaultName('process', 'train', 17n)).toBe('dump-process-train-17')
  })

  it('never collide, however fast they come', () => {
    const times = Array.from({ length: 10_000 }, () => unixNanoseconds())
    expect(new Set(times).size).toBe(times.length)
  })

  it.each(['', '.', '..', '.x', 'a/b', '/x', 'a\nb', 'x'.repeat(181)])('%j is refused', (name) => {
    expect(() => checkName(name)).toThrow(expect.objectContaining({ code: 'BAD_OPTIONS' }))
  })

  it.each(['a', 'a..b', 'ünïcode', '-x', 'a b'])('%j is fine', (name) => {
    expect(() => checkName(name)).not.toThrow()
  })

  it('of storages that need a plugin are refused', () => {
    expect(() => requireLocal('s3://bucket/x')).toThrow(
      expect.objectContaining({ code: 'NO_SUCH_PLUGIN', message: 'plugin storage/s3 was not found' }),
    )
    expect(() => requireLocal('/tmp/a://b')).not.toThrow()
  })
})

describe('compressions', () => {
  it('are found again by their suffix', () => {
    for (const compression of COMPRESSIONS) {
      if (compression !== 'none') expect(formatOf(`/x/dump-1${suffixOf(compression)}`)).toBe(compression)
    }
    expect(formatOf('/x.y/dump-process-1')).toBe('tar')
    const zstd = Buffer.from([0x28, 0xb5, 0x2f, 0xfd])
    expect(['/x/d.tar', '/x/d.tar.gz', '/x/d'].map((path) => formatOf(path, zstd))).toEqual(['zstd', 'zstd', 'zstd'])
    expect(formatOf('/x/d.tar.zst', Buffer.from('conf'))).toBe('zstd')
  })

  it('that do not exist are refused in the words of the reference', () => {
    expect(() => parseCompression('gz')).toThrow(
      expect.objectContaining({ code: 'FORMAT_UNSUPPORTED', message: "unsupported compression format 'gz'" }),
    )
    expect(() => formatOf('/x/d.tar.jibberish')).toThrow(
      expect.objectContaining({ code: 'FORMAT_UNSUPPORTED', message: 'Unsupported compression format: .jibberish' }),
    )
  })
})

it('has a default name for every job, that leaves room for what a partial name adds', () => {
  const name = defaultName('cloud-hypervisor', 'j'.repeat(128), 1795714053441192024n)
  expect(() => checkName(name)).not.toThrow()
  const longest = partialName('x'.repeat(180), { ...maker, pid: 4194304, startTicks: '9'.repeat(12) }, 'f'.repeat(12))
  for (const compression of COMPRESSIONS) expect((longest + suffixOf(compression)).length).toBeLessThanOrEqual(255)
})

describe('levels', () => {
  it.each([
    ['gzip', undefined, 0, undefined],
    ['gzip', 0, 5, undefined],
    ['gzip', 9, 0, 9],
    ['gzip', undefined, 19, 9],
    ['zstd', undefined, 19, 19],
    ['none', undefined, 19, undefined],
  ] as const)('of %s: %s asked, %s configured', (compression, asked, configured, level) => {
    expect(parseLevel(compression, asked, configured)).toBe(level)
  })

  it.each([
    ['gzip', 10],
    ['lz4', 13],
    ['zstd', -1],
    ['tar', 1],
  ] as const)('%s has no %s', (compression, asked) => {
    expect(() => parseLevel(compression, asked, 0)).toThrow(expect.objectContaining({ code: 'BAD_OPTIONS' }))
  })
})

describe('partial names', () => {
  it('say who made them and are never valid names', () => {
    fc.assert(
      fc.property(
        fc.string({ minLength: 1, maxLength: 30 }).filter((name) => !/[/\n\0]/.test(name)),
        fc.nat(),
        (name, pid) => {
          const partial = partialName(name, { ...maker, pid }, 'ab12')
          expect(() => checkName(partial)).toThrow()
          expect(parsePartial(partial, maker.bootId)).toEqual({ pid, startTicks: '99887', isThisBoot: true })
          expect(parsePartial(partial, 'another-boot')?.isThisBoot).toBe(false)
        },
      ),
    )
    // An archive grows beside its staging directory.
    for (const compression of COMPRESSIONS) {
      const partial = partialName('train', maker, 'ab12') + suffixOf(compression)
      expect(parsePartial(partial, maker.bootId)?.pid, partial).toBe(maker.pid)
    }
    expect(parsePartial('.hidden', maker.bootId)).toBeUndefined()
    expect(parsePartial('x.partial-4cea1dbc-1-2-3', maker.bootId)).toBeUndefined()
  })
})

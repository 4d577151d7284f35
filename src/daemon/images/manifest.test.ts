import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { digestOf } from '../../../test/support/plain-files.js'
import { decodeManifest, encodeManifest, type Manifest } from './manifest.js'

const fixture = readFileSync(new URL('../../../test/fixtures/manifest-v1.json', import.meta.url))

describe('manifest', () => {
  it('of version 1 stays readable', () => {
    expect(decodeManifest(fixture, digestOf)).toMatchObject({
      type: 'process',
      jid: 'train',
      criuVersion: 40201,
      files: [{ name: 'inventory.img' }, {}],
    })
  })

  it('comes back as it was written, with keys of later versions', () => {
    const manifest = { ...decodeManifest(fixture, digestOf), later: { x: 1 } } as Manifest
    expect(decodeManifest(encodeManifest(manifest, digestOf), digestOf)).toEqual(manifest)
  })

  it('with a flipped bit is refused, or reads the same', () => {
    const original = decodeManifest(fixture, digestOf)
    fc.assert(
      fc.property(fc.nat(fixture.length - 1), fc.nat(7), (index, bit) => {
        const flipped = Buffer.from(fixture)
        flipped[index] = (flipped[index] ?? 0) ^ (1 << bit)
        let read: Manifest
        try {
          read = decodeManifest(flipped, digestOf)
        } catch (thrown) {
          expect(thrown).toMatchObject({ code: 'IMAGE_CORRUPT' })
          return
        }
        expect(read).toEqual(original)
      }),
      { numRuns: 500 },
    )
  })

  it('that is cut off is refused', () => {
    fc.assert(
      fc.property(fc.nat(fixture.length - 3), (length) => {
        expect(() => decodeManifest(fixture.subarray(0, length), digestOf)).toThrow(expect.objectContaining({ code: 'IMAGE_CORRUPT' }))
      }),
      { numRuns: 50 },
    )
  })

  it('of a later version asks for a newer cedana', () => {
    const body = { anything: true }
    const digest = digestOf(Buffer.from(JSON.stringify({ version: 2, body })))
    const bytes = Buffer.from(JSON.stringify({ format: 'cedana-checkpoint', version: 2, digest, body }))
    expect(() => decodeManifest(bytes, digestOf)).toThrow(expect.objectContaining({ code: 'FORMAT_UNSUPPORTED' }))
  })
})

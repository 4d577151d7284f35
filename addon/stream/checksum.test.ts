import { execFileSync } from 'node:child_process'
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { native } from '../index.js'

const LEAF = 4 << 20

const dir = mkdtempSync(join(tmpdir(), 'cedana-checksum-'))
const directoryFd = openSync(dir, 'r')
afterAll(() => {
  closeSync(directoryFd)
  rmSync(dir, { recursive: true })
})

/** Bytes that do not repeat at the length of a leaf. */
function pattern(size: number, seed = 1): Uint8Array {
  const words = new Uint32Array(Math.ceil(size / 4))
  let x = seed
  for (let i = 0; i < words.length; i++) words[i] = x = (Math.imul(x, 1664525) + 1013904223) | 0
  return new Uint8Array(words.buffer, 0, size)
}

/** The definition in checksum.h, once more. */
function expected(content: Uint8Array): string {
  if (content.length <= LEAF) return native.digestBytes(content)
  const leaves: string[] = []
  for (let at = 0; at < content.length; at += LEAF) leaves.push(native.digestBytes(content.subarray(at, at + LEAF)))
  return native.digestBytes(Buffer.from(leaves.join(''), 'hex'))
}

describe('digestBytes', () => {
  it('is XXH3-128', () => {
    expect(native.digestBytes(new Uint8Array())).toBe('99aa06d3014798d86001c324468d497f')
    expect(native.digestBytes(Buffer.from('cedana'))).toBe(native.digestBytes(Buffer.from('xcedana').subarray(1)))
    expect(native.digestBytes(Buffer.from('a'))).toBe('a96faf705af16834e6c632b61e964e1f')
  })

  it('is a digest of leaves above 4 MiB', () => {
    for (const size of [LEAF - 1, LEAF, LEAF + 1, 2 * LEAF, 3 * LEAF + 77]) {
      const content = pattern(size)
      expect(native.digestBytes(content)).toBe(expected(content))
    }
  })
})

describe('digestFiles', () => {
  it('answers size and digest in the order asked for', async () => {
    const sizes = [0, 1, 511, 4096, 262_144, LEAF - 1, LEAF, LEAF + 1, 5 * LEAF + 3]
    const contents = sizes.map((size, i) => pattern(size, i))
    contents.forEach((content, i) => writeFileSync(join(dir, `f${i}`), content))
    const names = sizes.map((_, i) => `f${i}`).reverse()
    for (const beside of [false, true]) {
      expect(await native.digestFiles(directoryFd, names, beside)).toEqual(
        names.map((name) => ({ name, size: sizes[+name.slice(1)], digest: expected(contents[+name.slice(1)] as Uint8Array) })),
      )
    }
    expect(await native.digestFiles(directoryFd, [], true)).toEqual([])
  })

  it('notices a hole as the zeros it is', async () => {
    execFileSync('truncate', ['-s', String(2 * LEAF), join(dir, 'hole')])
    expect(await native.digestFiles(directoryFd, ['hole'], false)).toEqual([
      { name: 'hole', size: 2 * LEAF, digest: expected(new Uint8Array(2 * LEAF)) },
    ])
  })

  it('names the file that cannot be read', async () => {
    mkdirSync(join(dir, 'folder'))
    symlinkSync('/etc/passwd', join(dir, 'link'))
    await expect(native.digestFiles(directoryFd, ['missing'], false)).rejects.toMatchObject({ code: 'ENOENT', op: 'open missing' })
    await expect(native.digestFiles(directoryFd, ['folder'], false)).rejects.toMatchObject({ code: 'EISDIR', op: 'read folder' })
    await expect(native.digestFiles(directoryFd, ['link'], false)).rejects.toMatchObject({ code: 'ELOOP', op: 'open link' })
    await expect(native.digestFiles(-1, ['any'], false)).rejects.toMatchObject({ code: 'EBADF' })
  })
})

import { execFileSync, spawnSync } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync, gzipSync, inflateSync } from 'node:zlib'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { ARCHIVE_FORMATS, native, type NativeFileDigest } from '../index.js'

type Files = ReadonlyMap<string, Uint8Array>

const base = mkdtempSync(join(tmpdir(), 'cedana-archive-'))
afterAll(() => rmSync(base, { recursive: true }))
let folders = 0

async function inFolder<T>(use: (path: string, fd: number) => Promise<T>): Promise<T> {
  const path = join(base, String(folders++))
  mkdirSync(path)
  const fd = openSync(path, 'r')
  try {
    return await use(path, fd)
  } finally {
    closeSync(fd)
    rmSync(path, { recursive: true })
  }
}

/** Random, repetitive and zero stretches: each codec meets what it stores and what it packs. */
function content(size: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(size)
  let x = seed + 1
  for (let i = 0; i < size; i++) {
    const kind = (i >> 14) % 3
    x = (Math.imul(x, 1664525) + 1013904223) | 0
    bytes[i] = kind === 0 ? x >>> 24 : kind === 1 ? i & 15 : 0
  }
  return bytes
}

interface Packed {
  readonly bytes: Buffer
  readonly size: number
  readonly digest: string
}

function pack(files: Files, format: string, level: number | null = null, threads = 2): Promise<Packed> {
  return inFolder(async (path, fd) => {
    for (const [name, bytes] of files) writeFileSync(join(path, name), bytes)
    const outputPath = join(path, '.archive')
    const output = openSync(outputPath, 'w+')
    try {
      const made = await native.archiveCreate(fd, [...files.keys()], output, format, level, threads, null)
      return { ...made, bytes: readFileSync(outputPath) }
    } finally {
      closeSync(output)
    }
  })
}

function withArchive<T>(bytes: Uint8Array, use: (fd: number) => Promise<T>): Promise<T> {
  return inFolder(async (path) => {
    writeFileSync(join(path, 'archive'), bytes)
    const fd = openSync(join(path, 'archive'), 'r')
    try {
      return await use(fd)
    } finally {
      closeSync(fd)
    }
  })
}

function unpack(bytes: Uint8Array, format: string): Promise<{ digests: NativeFileDigest[]; files: Files }> {
  return withArchive(bytes, (archive) =>
    inFolder(async (path, fd) => {
      const digests = await native.archiveExtract(archive, format, fd, null)
      return { digests, files: new Map(digests.map(({ name }) => [name, readFileSync(join(path, name))])) }
    }),
  )
}

const digestsOf = (files: Files) => [...files].map(([name, bytes]) => ({ name, size: bytes.length, digest: native.digestBytes(bytes) }))

const sample: Files = new Map([
  ['manifest.json', content(700, 1)],
  ['empty.img', new Uint8Array()],
  ['pages-1.img', content((9 << 20) + 4096, 2)],
  ['core-1.img', content(512, 3)],
  ['n'.repeat(100), content(1_048_577, 4)],
])

const bsdTar = (bytes: Uint8Array) =>
  inFolder(async (path) => {
    const run = spawnSync('tar', ['-xf', '-', '-C', path], { input: bytes })
    expect(run.stderr.toString()).toBe('')
    expect(run.status).toBe(0)
    return new Map([...sample.keys()].map((name) => [name, readFileSync(join(path, name))]))
  })

const REAL_TOOLS: Record<string, (bytes: Buffer) => Buffer> = {
  tar: (bytes) => bytes,
  gzip: (bytes) => {
    execFileSync('gzip', ['-t'], { input: bytes })
    expect(gunzipSync(bytes).length).toBeGreaterThan(0)
    return execFileSync('gzip', ['-dc'], { input: bytes, maxBuffer: 1 << 28 })
  },
  lz4: (bytes) => execFileSync('lz4', ['-dc'], { input: bytes, maxBuffer: 1 << 28 }),
  zlib: (bytes) => {
    const inflated = execFileSync(
      'python3',
      [
        '-c',
        'import sys,zlib; d=zlib.decompressobj(); o=d.decompress(sys.stdin.buffer.read())+d.flush(); assert d.eof and not d.unused_data; sys.stdout.buffer.write(o)',
      ],
      { input: bytes, maxBuffer: 1 << 28 },
    )
    expect(inflateSync(bytes).equals(inflated)).toBe(true)
    return inflated
  },
  zstd: (bytes) => execFileSync('zstd', ['-dc'], { input: bytes, maxBuffer: 1 << 28 }),
}

const has = (tool: string) => spawnSync(tool, ['--version']).status === 0
const toolOf = (format: string) => (format === 'zlib' ? 'python3' : format)

describe.each(ARCHIVE_FORMATS)('%s', (format) => {
  it('comes back as it was, with the digests of the archive and of each file', async () => {
    const packed = await pack(sample, format)
    expect(packed.size).toBe(packed.bytes.length)
    expect(packed.digest).toBe(native.digestBytes(packed.bytes))
    const { digests, files } = await unpack(packed.bytes, format)
    expect(digests).toEqual(digestsOf(sample))
    for (const [name, bytes] of sample) expect(Buffer.compare(files.get(name) ?? Buffer.from('x'), bytes), name).toBe(0)
    if (format !== 'tar') expect(packed.bytes.length).toBeLessThan(6 << 20)
  })

  it.skipIf(!has(toolOf(format)))('is what the usual tools read', async () => {
    const { bytes } = await pack(sample, format)
    const files = await bsdTar((REAL_TOOLS[format] as (bytes: Buffer) => Buffer)(bytes))
    for (const [name, original] of sample) expect(Buffer.compare(files.get(name) ?? Buffer.from('x'), original), name).toBe(0)
  })

  it.skipIf(format === 'zlib' || !has(toolOf(format)))('reads what the usual tools write', async () => {
    await inFolder(async (path) => {
      for (const [name, bytes] of sample) writeFileSync(join(path, name), bytes)
      const tar = execFileSync('tar', ['-cf', '-', '-C', path, ...sample.keys()], { maxBuffer: 1 << 28 })
      const packed = format === 'tar' ? tar : execFileSync(format, ['-c', '-'], { input: tar, maxBuffer: 1 << 28 })
      const { files } = await unpack(packed, format)
      expect([...files.keys()].sort()).toEqual([...sample.keys()].sort())
      for (const [name, bytes] of sample) expect(Buffer.compare(files.get(name) ?? Buffer.from('x'), bytes), name).toBe(0)
    })
  })

  it('packs at each end of its levels, whatever the number of threads, to the same content', async () => {
    const levels = { tar: [0], gzip: [0, 1, 9], zlib: [0, 9], lz4: [-10, 1, 3, 12], zstd: [-5, 1, 19] }[format]
    const small: Files = new Map([
      ['a', content(2_500_000, 9)],
      ['b', content(3, 8)],
    ])
    for (const level of levels) {
      for (const threads of [1, 4])
        expect((await unpack((await pack(small, format, level, threads)).bytes, format)).digests).toEqual(digestsOf(small))
    }
    await expect(pack(small, format, 99)).rejects.toMatchObject({ code: 'EINVAL', op: 'compression level' })
  })

  it('comes back for any sizes and order (property)', async () => {
    const size = fc.oneof(
      fc.nat(2000),
      fc.constantFrom(0, 511, 512, 513, 4095, 4096, (1 << 20) - 512, 1 << 20, (1 << 20) + 1, 4 << 20, (4 << 20) + 1),
      fc.nat(1_500_000),
    )
    const names = fc.uniqueArray(fc.stringMatching(/^[a-zA-Z0-9_][a-zA-Z0-9._ -]{0,99}$/), { minLength: 1, maxLength: 5 })
    await fc.assert(
      fc.asyncProperty(
        names,
        fc.array(size, { minLength: 5, maxLength: 5 }),
        fc.integer({ min: 1, max: 3 }),
        async (chosen, sizes, threads) => {
          const files: Files = new Map(chosen.map((name, i) => [name, content(sizes[i] as number, i)]))
          expect((await unpack((await pack(files, format, null, threads)).bytes, format)).digests).toEqual(digestsOf(files))
        },
      ),
      { numRuns: 6 },
    )
  }, 60_000)

  it('never passes damage as content (property)', async () => {
    const files: Files = new Map([
      ['a.img', content(40_000, 1)],
      ['b.img', content(70_123, 2)],
      ['c.img', new Uint8Array(5000)],
    ])
    const { bytes } = await pack(files, format)
    const digests = digestsOf(files)
    const outcome = (damaged: Uint8Array) =>
      unpack(damaged, format).then(
        (done): NativeFileDigest[] | null => done.digests,
        (error: unknown) => {
          expect(error).toMatchObject({ code: expect.stringMatching(/EBADMSG|EEXIST/) as unknown })
          return null // refused
        },
      )
    // Cut anywhere, or with anything behind: refused.
    await fc.assert(
      fc.asyncProperty(fc.nat(bytes.length - 1), async (length) => {
        expect(await outcome(bytes.subarray(0, length))).toBeNull()
      }),
      { numRuns: 30 },
    )
    for (const tail of ['x', '\0x', 'garbage'.repeat(200)]) expect(await outcome(Buffer.concat([bytes, Buffer.from(tail)]))).toBeNull()
    // One changed bit: refused, or seen in a digest; or it stood where nothing depends on it, and the content is right.
    await fc.assert(
      fc.asyncProperty(fc.nat(bytes.length * 8 - 1), async (bit) => {
        const damaged = Buffer.from(bytes)
        damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7))
        const result = await outcome(damaged)
        if (result !== null && format !== 'tar') expect(result.map(({ digest }) => digest)).toEqual(digests.map(({ digest }) => digest))
      }),
      { numRuns: 30 },
    )
  }, 60_000)
})

describe('archiveExtract', () => {
  const made = (build: string) =>
    inFolder(async (path) => {
      execFileSync('sh', ['-ec', build], { cwd: path, stdio: 'pipe' })
      return readFileSync(join(path, 'out.tar'))
    })

  it.each([
    ['a folder in a name', 'mkdir d; echo x > d/f; tar -cf out.tar d/f', 'tar: refused name d/f'],
    ['a way out', 'mkdir d; echo x > f; cd d; tar -Pcf ../out.tar ../f', 'tar: refused name ../f'],
    ['an absolute name', 'echo x > f; tar -Pcf out.tar "$PWD/f"', /^tar: refused name \//],
    ['a symbolic link', 'ln -s /etc/passwd l; tar -cf out.tar l', 'tar: link l'],
    ['a hard link', 'echo x > f; ln f g; tar -cf out.tar f g', 'tar: link g'],
    ['a name too long for its header', `f=$(printf %0150d 1); echo x > $f; tar -cf out.tar $f`, 'tar: unsupported entry of type L'],
    ['a sparse file', 'truncate -s 1M s; echo x >> s; tar -Scf out.tar s', 'tar: unsupported entry of type S'],
    ['a pax name', `f=$(printf %0150d 1); echo x > $f; tar -H pax -cf out.tar $f`, 'tar: unsupported extended header path='],
  ])('refuses %s', async (_, build, op) => {
    await expect(unpack(await made(build), 'tar')).rejects.toMatchObject({ code: 'EBADMSG', op: expect.stringMatching(op) as unknown })
  })

  it('passes over directories, devices and harmless extended headers', async () => {
    const bytes = await made('mkdir d; echo x > f; mkfifo p; tar -H pax -cf out.tar ./d p ./f')
    const { files } = await unpack(bytes, 'tar')
    expect([...files].map(([name, content]) => [name, content.toString()])).toEqual([['f', 'x\n']])
  })

  it('does not write over a file', async () => {
    const { bytes } = await pack(new Map([['a', content(10, 1)]]), 'tar')
    await withArchive(bytes, (archive) =>
      inFolder(async (path, fd) => {
        symlinkSync('/etc/nothing', join(path, 'a'))
        await expect(native.archiveExtract(archive, 'tar', fd, null)).rejects.toMatchObject({ code: 'EEXIST', op: 'create a' })
        expect(existsSync('/etc/nothing')).toBe(false)
      }),
    )
  })

  it('refuses what is not of its format', async () => {
    const { bytes } = await pack(new Map([['a', content(3000, 1)]]), 'zstd')
    for (const format of ['tar', 'gzip', 'lz4', 'zlib']) {
      await expect(unpack(bytes, format)).rejects.toMatchObject({ code: 'EBADMSG', op: expect.stringContaining(format) as unknown })
      await expect(unpack(Buffer.alloc(0), format)).rejects.toMatchObject({ code: 'EBADMSG' })
    }
    await expect(unpack(bytes, 'rar')).rejects.toMatchObject({ code: 'EINVAL', op: 'archive format' })
  })

  it('takes gzip members in a row as one stream', async () => {
    const { bytes } = await pack(sample, 'tar')
    const halves = Buffer.concat([gzipSync(bytes.subarray(0, 100_000)), gzipSync(bytes.subarray(100_000))])
    expect((await unpack(halves, 'gzip')).digests).toEqual(digestsOf(sample))
  })
})

describe('archiveRead', () => {
  it.each(ARCHIVE_FORMATS)('answers the beginning of the members asked for (%s)', async (format) => {
    const { bytes } = await pack(sample, format)
    const read = (names: string[] | null, maxBytes: number) =>
      withArchive(bytes, (fd) => native.archiveRead(fd, format, names, maxBytes)).then((found) =>
        found.map((f) => ({ ...f, content: Buffer.from(f.content) })),
      )
    expect(await read(['core-1.img', 'missing', 'manifest.json'], 600)).toEqual([
      { name: 'manifest.json', size: 700, content: Buffer.from(content(700, 1).subarray(0, 600)) },
      { name: 'core-1.img', size: 512, content: Buffer.from(content(512, 3)) },
    ])
    expect((await read(null, 0)).map(({ name, size }) => [name, size])).toEqual([...sample].map(([name, { length }]) => [name, length]))
  })

  it('reads no further than it has to', async () => {
    const { bytes } = await pack(sample, 'gzip')
    const cut = bytes.subarray(0, bytes.length / 2)
    await expect(withArchive(cut, (fd) => native.archiveRead(fd, 'gzip', ['manifest.json'], 10))).resolves.toHaveLength(1)
    await expect(withArchive(cut, (fd) => native.archiveRead(fd, 'gzip', ['core-1.img'], 10))).rejects.toMatchObject({
      code: 'EBADMSG',
      op: 'gzip: cut off',
    })
  })
})

describe('archiveCreate', () => {
  it('reports every failure', async () => {
    await inFolder(async (path, fd) => {
      writeFileSync(join(path, 'a'), content(3_000_000, 1))
      const create = (names: string[], output: number, format = 'lz4') => native.archiveCreate(fd, names, output, format, null, 2, null)
      const output = openSync(join(path, 'out'), 'w')
      await expect(create(['a', 'missing'], output)).rejects.toMatchObject({ code: 'ENOENT', op: 'open missing' })
      await expect(create(['../a'], output)).rejects.toMatchObject({ code: 'ENAMETOOLONG' })
      await expect(create(['.'], output)).rejects.toMatchObject({ code: 'EISDIR' })
      expect(() => create(['a'], output, 'none')).toThrow(/^archive format/)
      await expect(create(['a'], output)).resolves.toHaveProperty('size')
      closeSync(output)
      const full = openSync('/dev/full', 'w')
      for (const format of ARCHIVE_FORMATS)
        await expect(create(['a'], full, format)).rejects.toMatchObject({ code: 'ENOSPC', op: 'write archive' })
      closeSync(full)
      const readOnly = openSync(join(path, 'a'), 'r')
      await expect(create(['a'], readOnly)).rejects.toMatchObject({ code: 'EBADF', op: 'write archive' })
      closeSync(readOnly)
    })
  })

  it('tells its progress now and then', async () => {
    await inFolder(async (path, fd) => {
      writeFileSync(join(path, 'a'), content(64 << 20, 1))
      const output = openSync(join(path, 'out'), 'w')
      const seen: { readBytes: number; writtenBytes: number }[] = []
      const started = performance.now()
      await native.archiveCreate(fd, ['a'], output, 'gzip', 9, 1, (p) => seen.push(p))
      closeSync(output)
      expect(seen.length).toBeGreaterThan(1)
      expect(seen.length).toBeLessThan((performance.now() - started) / 50 + 2)
      expect(seen.map((p) => p.readBytes)).toEqual(seen.map((p) => p.readBytes).sort((a, b) => a - b))
    })
  }, 30_000)
})

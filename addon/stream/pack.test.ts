import { execFileSync, spawnSync } from 'node:child_process'
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync, gzipSync, inflateSync } from 'node:zlib'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { ARCHIVE_FORMATS, native, type ImagesHandle, type NativeFileDigest, type Unpacked } from '../index.js'

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

interface PackRequest {
  readonly level?: number | null
  readonly threads?: number
  /** 0: an archive. */
  readonly shards?: number
  readonly memoryBytes?: number
  readonly spill?: boolean
}

function pack(files: Files, format: string, request: PackRequest = {}): Promise<Buffer[]> {
  const { level = null, threads = 2, shards = 0, memoryBytes = 64 << 20, spill = false } = request
  return inFolder(async (path, directoryFd) => {
    for (const [name, bytes] of files) writeFileSync(join(path, name), bytes)
    const paths = Array.from({ length: Math.max(shards, 1) }, (_, i) => join(path, `.img-${i}`))
    const outputFds = paths.map((output) => openSync(output, 'w+'))
    const spillFd = spill ? openSync(join(path, '.spill'), 'w+') : null
    try {
      const options = { outputFds, sharded: shards > 0, format, level, threads, memoryBytes, background: spill, spillFd, offset: 0 }
      const packer = native.packOpen(options)
      expect(await native.packAdd(packer, directoryFd, [...files.keys()], '')).toEqual(digestsOf(files))
      const outputs = await native.packFinish(packer)
      const packed = paths.map((output) => readFileSync(output))
      expect(outputs.map(({ size }) => size)).toEqual(packed.map(({ length }) => length))
      if (shards > 0) expect(outputs.map(({ digest }) => digest)).toEqual(packed.map((bytes) => native.digestBytes(bytes)))
      if (spill) expect(native.packProgress(packer).spilledBytes).toBeGreaterThan(0)
      return packed
    } finally {
      for (const fd of [...outputFds, ...(spillFd === null ? [] : [spillFd])]) closeSync(fd)
    }
  })
}
const archive = async (files: Files, format: string, request: PackRequest = {}): Promise<Buffer> =>
  (await pack(files, format, request))[0] as Buffer

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

type Found = { digests: NativeFileDigest[]; files: Files }

/** With so much memory; the rest goes to files. */
async function intoMemory(memoryBytes: number, use: (images: ImagesHandle) => Promise<Unpacked>): Promise<Found & { shards: string[] }> {
  const { images, directoryFd } = native.imagesMake(memoryBytes, base)
  try {
    const { files: digests, shards } = await use(images)
    const files = new Map(digests.map(({ name }) => [name, readFileSync(`/proc/${process.pid}/fd/${directoryFd}/${name}`)]))
    return { digests, files, shards: shards.map(({ digest }) => digest) }
  } finally {
    native.imagesClose(images)
  }
}

const unpack = (bytes: Uint8Array, format: string, memoryBytes = 1 << 30): Promise<Found> =>
  withArchive(bytes, (fd) => intoMemory(memoryBytes, (images) => native.unpackArchive(fd, format, null, [], images, null, null, null)))

const merge = (shards: readonly Uint8Array[], format: string, files: Files, memoryBytes = 1 << 30) =>
  inFolder(async (path) => {
    const fds = shards.map((bytes, i) => {
      writeFileSync(join(path, String(i)), bytes)
      return openSync(join(path, String(i)), 'r')
    })
    const expected = [...files].map(([name, { length }]) => ({ name, size: length }))
    try {
      return await intoMemory(memoryBytes, (images) => native.unpackShards(fds, format, expected, images, null, null, null))
    } finally {
      fds.forEach((fd) => closeSync(fd))
    }
  })

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
  it('comes back as it was, with the digest of each file', async () => {
    const packed = await archive(sample, format)
    const { digests, files } = await unpack(packed, format)
    expect(digests).toEqual(digestsOf(sample))
    for (const [name, bytes] of sample) expect(Buffer.compare(files.get(name) ?? Buffer.from('x'), bytes), name).toBe(0)
    if (format !== 'tar') expect(packed.length).toBeLessThan(6 << 20)
  })

  it.skipIf(!has(toolOf(format)))('is what the usual tools read', async () => {
    const bytes = await archive(sample, format)
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
        expect((await unpack(await archive(small, format, { level, threads }), format)).digests).toEqual(digestsOf(small))
    }
    await expect(pack(small, format, { level: 99 })).rejects.toMatchObject({ code: 'EINVAL', op: 'compression level' })
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
          expect((await unpack(await archive(files, format, { threads }), format)).digests).toEqual(digestsOf(files))
        },
      ),
      { numRuns: 4 },
    )
  }, 60_000)

  it('never passes damage as content (property)', async () => {
    const files: Files = new Map([
      ['a.img', content(40_000, 1)],
      ['b.img', content(70_123, 2)],
      ['c.img', new Uint8Array(5000)],
    ])
    const bytes = await archive(files, format)
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

describe('unpackArchive', () => {
  const made = (build: string) =>
    inFolder(async (path) => {
      execFileSync('sh', ['-ec', build], { cwd: path, stdio: 'pipe' })
      return readFileSync(join(path, 'out.tar'))
    })

  it.each([
    ['a way out', 'mkdir d; echo x > f; cd d; tar -Pcf ../out.tar ../f', 'tar: refused name ../f'],
    ['a way out of a directory', 'mkdir d; echo x > f; tar -Pcf out.tar d/../f', 'tar: refused name d/../f'],
    ['a way out of checkpoint/', 'mkdir checkpoint; echo x > f; tar -Pcf out.tar checkpoint/../f', 'tar: refused name checkpoint/../f'],
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

  it('has a folder for images where one is asked for, which tar and we know', async () => {
    await inFolder(async (path, directoryFd) => {
      for (const name of ['top', 'a.img']) writeFileSync(join(path, name), name)
      const outputFds = [openSync(join(path, 'out.tar'), 'w+')]
      const options = {
        outputFds,
        sharded: false,
        format: 'tar',
        level: null,
        threads: 2,
        memoryBytes: 1 << 22,
        background: false,
        spillFd: null,
        offset: 0,
      }
      const packer = native.packOpen(options)
      await native.packAdd(packer, directoryFd, ['top'], '')
      await native.packAdd(packer, directoryFd, ['a.img'], 'checkpoint/')
      await native.packFinish(packer)
      closeSync(outputFds[0] as number)
      const listed = execFileSync('tar', ['-tvf', 'out.tar'], { cwd: path, encoding: 'utf8' })
      expect(listed.split('\n').map((line) => /^(\S+).* (\S+)$/.exec(line)?.slice(1).join(' '))).toEqual([
        '-rw------- top',
        'drwx------ checkpoint/',
        '-rw------- checkpoint/a.img',
        undefined,
      ])
      const { files } = await unpack(readFileSync(join(path, 'out.tar')), 'tar')
      expect([...files].map(([name, bytes]) => [name, bytes.toString()])).toEqual([
        ['top', 'top'],
        ['a.img', 'a.img'],
      ])
    })
  })

  it('passes over files in directories, but for those in checkpoint/', async () => {
    const bytes = await made('mkdir -p d checkpoint/d; echo x | tee f d/f checkpoint/g checkpoint/d/f; tar -cf out.tar f ./d ./checkpoint')
    const { files } = await unpack(bytes, 'tar')
    expect([...files.keys()].sort()).toEqual(['f', 'g'])
  })

  it('does not write over a file', async () => {
    const twice = await made('echo x > f; tar -cf out.tar f; cp out.tar a.tar; tar -Af out.tar a.tar')
    await expect(unpack(twice, 'tar')).rejects.toMatchObject({ code: 'EEXIST', op: 'create f' })
  })

  it('refuses what is not of its format', async () => {
    const bytes = await archive(new Map([['a', content(3000, 1)]]), 'zstd')
    for (const format of ['tar', 'gzip', 'lz4', 'zlib']) {
      await expect(unpack(bytes, format)).rejects.toMatchObject({ code: 'EBADMSG', op: expect.stringContaining(format) as unknown })
      await expect(unpack(Buffer.alloc(0), format)).rejects.toMatchObject({ code: 'EBADMSG' })
    }
    await expect(unpack(bytes, 'rar')).rejects.toMatchObject({ code: 'EINVAL', op: 'archive format' })
  })

  it('takes gzip members in a row as one stream', async () => {
    const bytes = await archive(sample, 'tar')
    const halves = Buffer.concat([gzipSync(bytes.subarray(0, 100_000)), gzipSync(bytes.subarray(100_000))])
    expect((await unpack(halves, 'gzip')).digests).toEqual(digestsOf(sample))
  })
})

describe('archiveRead', () => {
  it.each(ARCHIVE_FORMATS)('answers the beginning of the members asked for (%s)', async (format) => {
    const bytes = await archive(sample, format)
    const read = (names: string[] | null, maxBytes: number) =>
      withArchive(bytes, (fd) => native.archiveRead(fd, format, null, false, names, maxBytes)).then((found) =>
        found.map((f) => ({ ...f, content: Buffer.from(f.content) })),
      )
    expect(await read(['core-1.img', 'missing', 'manifest.json'], 600)).toEqual([
      { name: 'manifest.json', size: 700, content: Buffer.from(content(700, 1).subarray(0, 600)) },
      { name: 'core-1.img', size: 512, content: Buffer.from(content(512, 3)) },
    ])
    expect((await read(null, 0)).map(({ name, size }) => [name, size])).toEqual([...sample].map(([name, { length }]) => [name, length]))
  })

  it('reads no further than it has to', async () => {
    const bytes = await archive(sample, 'gzip')
    const cut = bytes.subarray(0, bytes.length / 2)
    await expect(withArchive(cut, (fd) => native.archiveRead(fd, 'gzip', null, false, ['manifest.json'], 10))).resolves.toHaveLength(1)
    await expect(withArchive(cut, (fd) => native.archiveRead(fd, 'gzip', null, false, ['core-1.img'], 10))).rejects.toMatchObject({
      code: 'EBADMSG',
      op: 'gzip: cut off',
    })
  })

  const pages: Files = new Map([
    ['pages-1.img', content(9_000_000, 1)],
    ['core-1.img', content(70_000, 2)],
  ])
  const look = (bytes: Uint8Array, names: string[] | null = null) =>
    withArchive(bytes, (fd) => native.archiveRead(fd, 'zstd', null, false, names, 1 << 30)).then((found) =>
      found.map((f) => ({ ...f, content: Buffer.from(f.content) })),
    )

  it('does not look at what it passes over, where the format says how long that is', async () => {
    const bytes = await archive(pages, 'zstd')
    const core = { name: 'core-1.img', size: 70_000, content: Buffer.from(content(70_000, 2)) }
    expect(await look(bytes)).toEqual([{ name: 'pages-1.img', size: 9_000_000, content: Buffer.alloc(0) }, core])
    // In the middle of a block of the pages: whoever unpacks it sees it, whoever passes over does not.
    const damaged = Buffer.from(bytes)
    damaged.fill(0xff, 2_000_000, 2_000_100)
    await expect(unpack(damaged, 'zstd')).rejects.toMatchObject({ code: 'EBADMSG' })
    expect(await look(damaged, ['core-1.img'])).toEqual([core])
    // Frames that do not say it are unpacked.
    expect(await look(sizeless(await archive(pages, 'tar')), ['core-1.img'])).toEqual([core])
  })

  it('ends at any damage (property)', async () => {
    const bytes = await archive(pages, 'zstd')
    const outcome = (damaged: Uint8Array) => look(damaged).catch((error: unknown) => expect(error).toMatchObject({ code: 'EBADMSG' }))
    await fc.assert(
      fc.asyncProperty(fc.nat(bytes.length - 1), fc.nat(255), async (at, value) => {
        const damaged = Buffer.from(bytes)
        damaged[at] = value
        await outcome(damaged)
        await outcome(damaged.subarray(0, at))
      }),
      { numRuns: 40 },
    )
  }, 60_000)
})

/** A zstd frame of raw blocks that does not tell how long its content is (RFC 8878), as programs write that do not know it beforehand. */
function sizeless(data: Buffer): Buffer {
  const blocks: Buffer[] = [Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0x58])]
  for (let at = 0; at < data.length; at += 65536) {
    const part = data.subarray(at, at + 65536)
    const head = Buffer.alloc(3)
    head.writeUIntLE((part.length << 3) | (at + 65536 >= data.length ? 1 : 0), 0, 3)
    blocks.push(head, part)
  }
  return Buffer.concat(blocks)
}

describe('a packer', () => {
  const request = {
    sharded: false,
    format: 'lz4',
    level: null,
    threads: 2,
    memoryBytes: 32 << 20,
    background: false,
    spillFd: null,
    offset: 0,
  }
  const create = async (directoryFd: number, names: string[], output: number, format = 'lz4') => {
    const packer = native.packOpen({ ...request, outputFds: [output], format })
    await native.packAdd(packer, directoryFd, names, '')
    return native.packFinish(packer)
  }

  it('reports every failure', async () => {
    await inFolder(async (path, fd) => {
      writeFileSync(join(path, 'a'), content(3_000_000, 1))
      const output = openSync(join(path, 'out'), 'w')
      await expect(create(fd, ['a', 'missing'], output)).rejects.toMatchObject({ code: 'ENOENT', op: 'open missing' })
      await expect(create(fd, ['../a'], output)).rejects.toMatchObject({ code: 'ENAMETOOLONG' })
      await expect(create(fd, ['.'], output)).rejects.toMatchObject({ code: 'EISDIR' })
      await expect(create(fd, ['a'], output, 'none')).rejects.toMatchObject({ code: 'EINVAL', op: 'archive format' })
      await expect(create(fd, ['a'], output)).resolves.toHaveLength(1)
      closeSync(output)
      const full = openSync('/dev/full', 'w')
      for (const format of ARCHIVE_FORMATS)
        await expect(create(fd, ['a'], full, format)).rejects.toMatchObject({ code: 'ENOSPC', op: 'write checkpoint' })
      closeSync(full)
      const readOnly = openSync(join(path, 'a'), 'r')
      await expect(create(fd, ['a'], readOnly)).rejects.toMatchObject({ code: 'EBADF', op: 'write checkpoint' })
      closeSync(readOnly)
    })
  })

  it('ends at once when it is told to, and tells how far it got', async () => {
    await inFolder(async (path, fd) => {
      writeFileSync(join(path, 'a'), content(64 << 20, 1))
      const output = openSync(join(path, 'out'), 'w')
      const packer = native.packOpen({ ...request, outputFds: [output], format: 'zlib', level: 9 })
      const adding = native.packAdd(packer, fd, ['a'], '')
      adding.catch(() => undefined)
      while (native.packProgress(packer).packedBytes === 0) await new Promise((done) => setTimeout(done, 5))
      expect(native.packProgress(packer)).toMatchObject({ packedBytes: expect.any(Number) as unknown, spilledBytes: 0 })
      const started = performance.now()
      const aborted = native.packAbort(packer)
      await expect(adding).rejects.toMatchObject({ code: 'ECANCELED' })
      await expect(native.packFinish(packer)).rejects.toMatchObject({ code: 'ECANCELED' })
      await aborted
      expect(performance.now() - started).toBeLessThan(3000)
      closeSync(output)
    })
  }, 30_000)

  it.each(ARCHIVE_FORMATS)('spills what memory cannot hold (%s)', async (format) => {
    const files: Files = new Map([['pages-1.img', content(70_000_123, 5)]])
    const bytes = await archive(files, format, { memoryBytes: 1, spill: true, threads: 1 })
    expect((await unpack(bytes, format)).digests).toEqual(digestsOf(files))
  })
})

describe.each(ARCHIVE_FORMATS)('shards of %s', (format) => {
  it('come back for any sizes, number and order (property)', async () => {
    const size = fc.oneof(fc.nat(2000), fc.constantFrom(0, 511, 512, 4096, 4 << 20, (4 << 20) + 1, (8 << 20) - 1), fc.nat(5_000_000))
    await fc.assert(
      fc.asyncProperty(
        fc.array(size, { minLength: 1, maxLength: 5 }),
        fc.integer({ min: 2, max: 12 }),
        fc.boolean(),
        fc.constantFrom(0, 100_000, 1 << 30),
        async (sizes, shards, reversed, memoryBytes) => {
          const files: Files = new Map(sizes.map((bytes, i) => [`pages-${i}.img`, content(bytes, i)]))
          const packed = await pack(files, format, { shards })
          const given = reversed ? [...packed].reverse() : packed
          const found = await merge(given, format, files, memoryBytes)
          expect([...found.digests].sort((a, b) => (a.name < b.name ? -1 : 1))).toEqual(digestsOf(files))
          expect(found.shards).toEqual(given.map((bytes) => native.digestBytes(bytes)))
          for (const [name, bytes] of files) expect(Buffer.compare(found.files.get(name) ?? Buffer.from('x'), bytes), name).toBe(0)
        },
      ),
      { numRuns: 5 },
    )
  }, 60_000)

  it('are refused unless they are all there, once, and of these images', async () => {
    const files: Files = new Map([['pages-1.img', content(9_000_000, 1)]])
    const packed = await pack(files, format, { shards: 2 })
    const [first, second] = packed as [Buffer, Buffer]
    const refused = (shards: Buffer[], expected: Files, op: RegExp) =>
      expect(merge(shards, format, expected)).rejects.toMatchObject({ code: 'EBADMSG', op: expect.stringMatching(op) as unknown })
    await refused([second], files, /a piece of pages-1.img is missing/)
    await refused([first, first], files, /a piece of pages-1.img comes twice/)
    await refused([first, second], new Map([['b.img', content(9_000_000, 1)]]), /unknown image pages-1.img/)
    await refused([first, second], new Map([['pages-1.img', content(9_000_001, 1)]]), /a piece of pages-1.img that does not fit/)
    await refused([first.subarray(0, first.length / 2), second], files, /./)
  })

  it('never pass a changed bit (property)', async () => {
    const files: Files = new Map([['a.img', content(100_000, 1)]])
    const packed = await pack(files, format, { shards: 2 })
    const known = packed.map((bytes) => native.digestBytes(bytes))
    await fc.assert(
      fc.asyncProperty(fc.nat(1), fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), async (shard, place) => {
        const damaged = packed.map((bytes) => Buffer.from(bytes))
        const bytes = damaged[shard] as Buffer
        const bit = Math.floor(place * bytes.length * 8)
        bytes[bit >> 3] = (bytes[bit >> 3] as number) ^ (1 << (bit & 7))
        const found = await merge(damaged, format, files).catch(() => undefined)
        if (found) expect(found.shards).not.toEqual(known)
      }),
      { numRuns: 40 },
    )
  })

  it('are looked into one by one', async () => {
    const files: Files = new Map([
      ['core-1.img', content(700, 3)],
      ['pagemap-1.img', content((4 << 20) + 300, 4)],
    ])
    const [first, second] = (await pack(files, format, { shards: 2 })) as [Buffer, Buffer]
    const read = (bytes: Buffer, names: string[] | null) =>
      withArchive(bytes, (fd) => native.archiveRead(fd, format, null, true, names, 1 << 30))
    const found = await read(first, ['pagemap-1.img', 'core-1.img'])
    for (const { name, size, content: bytes } of found) {
      expect(size).toBe(files.get(name)?.length)
      expect(Buffer.compare(bytes, files.get(name) ?? Buffer.alloc(0))).toBe(0)
    }
    expect(found).toHaveLength(2)
    expect(await read(second, null)).toEqual([])
  })
})

describe('a directory in memory', () => {
  it('is reached by other processes, and gone with us', async () => {
    const { images, directoryFd } = native.imagesMake(1 << 20, base)
    await inFolder(async (path, fd) => {
      writeFileSync(join(path, 'small'), content(1000, 1))
      writeFileSync(join(path, 'large'), content(2 << 20, 2))
      const copied = await native.copyImages(fd, ['small', 'large'], images, null, null, null)
      expect(copied.files).toEqual(['small', 'large'].map((name) => digestsOf(new Map([[name, readFileSync(join(path, name))]]))[0]))
      const seen = execFileSync('sh', ['-c', `cd /proc/${process.pid}/fd/${directoryFd} && md5sum small large && find . -type l`])
      const plain = execFileSync('sh', ['-c', 'md5sum small large; echo ./large'], { cwd: path })
      expect(seen.toString()).toBe(plain.toString())
    })
    native.imagesClose(images)
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(`fd/${directoryFd}`)
  })

  it('keeps holes', async () => {
    const sparse: Files = new Map([['pages-1.img', new Uint8Array(64 << 20)]])
    const bytes = await archive(sparse, 'zstd')
    await withArchive(bytes, async (fd) => {
      const { images, directoryFd } = native.imagesMake(1 << 30, base)
      await native.unpackArchive(fd, 'zstd', null, [], images, null, null, null)
      expect(statSync(`/proc/self/fd/${directoryFd}/pages-1.img`)).toMatchObject({ size: 64 << 20, blocks: 0 })
      native.imagesClose(images)
    })
  })

  it('stops being filled when told to', async () => {
    const bytes = await archive(new Map([['a', content(60 << 20, 1)]]), 'gzip')
    await withArchive(bytes, async (fd) => {
      const cancellation = native.cancellation()
      const seen: number[] = []
      const unpacking = native.unpackArchive(
        fd,
        'gzip',
        null,
        [],
        null,
        cancellation,
        (read) => {
          seen.push(read)
          native.cancel(cancellation)
        },
        null,
      )
      await expect(unpacking).rejects.toMatchObject({ code: 'ECANCELED' })
      expect(seen[0]).toBeGreaterThan(0)
    })
  })
})

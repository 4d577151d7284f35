/** Writer and reader together: what one makes the other must read, and nothing else. */
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { plainFiles } from '../../../test/support/plain-files.js'
import type { Files } from './files.js'
import { COMPRESSIONS, type Compression } from './layout.js'
import type { ManifestInput } from './manifest.js'
import { CheckpointReader, verify } from './reader.js'
import { peek } from './sources.js'
import { removeStale } from './stale.js'
import { CheckpointWriter, CRIU_DUMP_LOG, type WriterRequest } from './writer.js'

const caller = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, groups: [] }
const maker = { pid: process.pid, startTicks: '1', bootId: '4cea1dbc-fe14-4d91-bec7-6decc3cf3961' }
const input: ManifestInput = {
  cedana: '0.1.0',
  createdAt: '2026-11-24T01:45:00.000Z',
  type: 'process',
  jid: 'train',
  target: { pid: 1, startTicks: '1', bootId: maker.bootId },
  stdio: { mode: 'log' },
  host: { id: 'x', name: 'x', kernel: '6.18', arch: 'x64', cpu: { vendor: '', model: '', flags: [] } },
  criuVersion: 40201,
  leaveRunning: false,
  criu: { tcpEstablished: false, shellJob: false, fileLocks: false, linkRemap: false, extUnixSockets: false, external: [] },
  details: {},
  sections: [],
}

let directory: string
let scratch: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'images-'))
  scratch = mkdtempSync(join(tmpdir(), 'scratch-'))
})
afterEach(() => {
  chmodSync(directory, 0o700)
  for (const path of [directory, scratch]) rmSync(path, { recursive: true, force: true })
})

const request = (changes: Partial<WriterRequest> = {}): WriterRequest => ({
  caller,
  maker,
  directory,
  name: 'ck',
  compression: 'none',
  level: undefined,
  threads: 1,
  streams: 0,
  memoryBytes: 1 << 26,
  background: false,
  estimateBytes: 1000,
  ...changes,
})
const { signal } = new AbortController()
const openRequest = (path: string) => ({ caller, path, memoryBytes: 1 << 30, spillDirectory: scratch, signal })

async function make(compression: Compression = 'none', streams = 0): Promise<string> {
  const writer = await CheckpointWriter.create(plainFiles, request({ compression, streams }))
  await writer.add('inventory.img', Buffer.from('inventory'))
  await writer.add('pages-1.img', Buffer.alloc(8192, 7))
  await writer.add(CRIU_DUMP_LOG, Buffer.from('Warn\n'))
  return (await writer.seal(input)).path
}

describe.each(COMPRESSIONS.flatMap((compression) => [0, 3].map((streams) => [compression, streams] as const)))(
  'a checkpoint with compression %s in %i streams',
  (compression, streams) => {
    it('is read as it was written, and nothing else is left', async () => {
      const path = await make(compression, streams)
      expect(readdirSync(directory)).toEqual([path.slice(directory.length + 1)])
      expect(statSync(path).mode & 0o077).toBe(0)
      const reader = await CheckpointReader.open(plainFiles, openRequest(path))
      expect(reader.manifest).toMatchObject({ jid: 'train', compression, totalBytes: 8206 })
      await Promise.all([reader.verifyImages(), reader.verifyPages()])
      expect(readdirSync(reader.imagesPath)).toEqual(expect.arrayContaining(['inventory.img', 'pages-1.img']))
      const contents = await reader.images.read(['inventory.img', 'none'])
      expect([...contents].map(([name, content]) => [name, Buffer.from(content).toString()])).toEqual([['inventory.img', 'inventory']])
      await reader.close()
      await reader.close()
      expect(readdirSync(scratch)).toEqual([])
      expect((await verify(plainFiles, openRequest(path))).manifest).toEqual(reader.manifest)
    })

    it('can be looked into without unpacking', async () => {
      const inside = await peek(plainFiles, { caller, path: await make(compression, streams) })
      expect(inside.manifest?.jid).toBe('train')
      expect((await inside.list()).map(({ name }) => name)).toContain('pages-1.img')
      inside.close()
      expect(readdirSync(scratch)).toEqual([])
    })

    it('never replaces another', async () => {
      await make(compression, streams)
      await expect(make(compression, streams)).rejects.toMatchObject({ code: 'CHECKPOINT_EXISTS' })
      expect(readdirSync(directory)).toHaveLength(1)
    })

    it('never replaces one that came meanwhile', async () => {
      const first = await CheckpointWriter.create(plainFiles, request({ compression, streams }))
      const second = await CheckpointWriter.create(plainFiles, request({ compression, streams }))
      await first.seal(input)
      await expect(second.seal(input)).rejects.toMatchObject({ code: 'CHECKPOINT_EXISTS' })
      await second.abort()
      expect(readdirSync(directory)).toHaveLength(1)
    })

    it.each(['digestFiles', 'renameNoReplace', 'digestBytes', 'add', 'finish'] as const)('whose %s fails is not there', async (broken) => {
      const full = (): never => {
        throw Object.assign(new Error('full'), { code: 'ENOSPC' })
      }
      const isPacked = compression !== 'none' || streams > 0
      if (isPacked ? broken === 'digestFiles' : broken === 'add' || broken === 'finish') return
      const files: Files = {
        ...plainFiles,
        pack: (asked) => ({
          ...plainFiles.pack(asked),
          ...(broken === 'add' && { add: full }),
          ...(broken === 'finish' && { finish: full }),
        }),
      }
      const writer = await CheckpointWriter.create(files, request({ compression, streams }))
      await writer.add('inventory.img', Buffer.from('inventory'))
      Object.assign(files, { [broken]: full })
      const sealing = writer.seal(input)
      await expect(sealing).rejects.toThrow()
      await writer.abort()
      expect(readdirSync(directory)).toEqual([])
    })
  },
)

describe('a writer', () => {
  it('says what is wrong with the directory', async () => {
    await expect(CheckpointWriter.create(plainFiles, request({ directory: '/no/such' }))).rejects.toMatchObject({
      code: 'BAD_OPTIONS',
      message: 'dump dir does not exist: /no/such',
    })
    const file = join(directory, 'file')
    writeFileSync(file, '')
    await expect(CheckpointWriter.create(plainFiles, request({ directory: file }))).rejects.toMatchObject({ code: 'BAD_OPTIONS' })
    await expect(CheckpointWriter.create(plainFiles, request({ estimateBytes: 2 ** 52 }))).rejects.toMatchObject({ code: 'NO_SPACE' })
    expect(readdirSync(directory)).toEqual(['file'])
  })

  it('that is aborted leaves nothing', async () => {
    const writer = await CheckpointWriter.create(plainFiles, request())
    await writer.add('core-1.img', Buffer.from('x'))
    await writer.abort()
    await writer.abort()
    expect(readdirSync(directory)).toEqual([])
  })

  it('does nothing when aborted after the seal', async () => {
    const writer = await CheckpointWriter.create(plainFiles, request())
    await writer.seal(input)
    await writer.abort()
    expect(readdirSync(directory)).toEqual(['ck'])
  })

  it('takes digests that are known', async () => {
    const writer = await CheckpointWriter.create(plainFiles, request())
    await writer.add('pages-1.img', Buffer.from('x'))
    const known = { name: 'pages-1.img', size: 1, digest: 'f'.repeat(32) }
    expect((await writer.seal(input, [known])).manifest.files).toEqual([known])
  })

  it.runIf(process.getuid?.() === 0)('for another user keeps the directory to itself until the seal', async () => {
    const user = { uid: 65534, gid: 65534, groups: [] }
    const asUser: Files = {
      ...plainFiles,
      async mkdirAs(ids, directoryFd, name, mode) {
        const fd = await plainFiles.mkdirAs(ids, directoryFd, name, mode)
        spawnSync('chown', ['65534:65534', join(directory, name)])
        return fd
      },
    }
    const writer = await CheckpointWriter.create(asUser, request({ caller: user }))
    const [staging = ''] = readdirSync(directory)
    expect(statSync(join(directory, staging)).uid).toBe(0)
    await writer.add('inventory.img', Buffer.from('x'))
    const { path } = await writer.seal(input)
    for (const entry of [path, join(path, 'inventory.img'), join(path, 'manifest.json')]) expect(statSync(entry).uid).toBe(65534)
  })

  it.runIf(process.getuid?.() === 0)('refuses a directory somebody has planted something in', async () => {
    const planted: Files = {
      ...plainFiles,
      async mkdirAs(ids, directoryFd, name, mode) {
        const fd = await plainFiles.mkdirAs(ids, directoryFd, name, mode)
        symlinkSync('/etc/passwd', join(directory, name, 'core-1.img'))
        return fd
      },
    }
    const user = { uid: 65534, gid: 65534, groups: [] }
    await expect(CheckpointWriter.create(planted, request({ caller: user }))).rejects.toMatchObject({ code: 'PERMISSION_DENIED' })
    expect(readdirSync(directory)).toEqual([])
  })
})

describe('a damaged checkpoint', () => {
  const damages: readonly (readonly [string, (path: string) => void, RegExp])[] = [
    ['truncated', (path) => truncateSync(join(path, 'pages-1.img'), 100), /pages-1\.img is truncated: 100 of 8192 bytes/],
    ['lengthened', (path) => writeFileSync(join(path, 'pages-1.img'), 'x', { flag: 'a' }), /pages-1\.img is too long/],
    ['missing', (path) => rmSync(join(path, 'inventory.img')), /inventory\.img is missing/],
    ['flipped', (path) => writeFileSync(join(path, 'inventory.img'), 'inventorx'), /inventory\.img has changed content/],
    [
      'replaced by a link',
      (path) => {
        rmSync(join(path, 'inventory.img'))
        symlinkSync('/etc/hostname', join(path, 'inventory.img'))
      },
      /inventory\.img is missing/,
    ],
  ]
  it.each(damages)('%s file is named', async (_, damage, message) => {
    const path = await make()
    damage(path)
    await expect(verify(plainFiles, openRequest(path))).rejects.toMatchObject({
      code: 'IMAGE_CORRUPT',
      message: expect.stringMatching(message) as string,
    })
  })

  it('names all that differs', async () => {
    const path = await make()
    truncateSync(join(path, 'pages-1.img'), 0)
    rmSync(join(path, 'inventory.img'))
    await expect(verify(plainFiles, openRequest(path))).rejects.toMatchObject({ detail: { files: ['inventory.img', 'pages-1.img'] } })
  })

  it('as an archive is refused and leaves no scratch', async () => {
    const path = await make('tar')
    truncateSync(path, statSync(path).size - 10)
    await expect(CheckpointReader.open(plainFiles, openRequest(path))).rejects.toMatchObject({
      code: 'IMAGE_CORRUPT',
      detail: { files: [path] },
    })
    await expect(peek(plainFiles, { caller, path })).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' })
    expect(readdirSync(scratch)).toEqual([])
  })

  const shardDamages: readonly (readonly [string, (path: string) => void, RegExp])[] = [
    ['a stream is missing', (path) => rmSync(join(path, 'img-2.lz4')), /img-2\.lz4 is missing/],
    ['one in the middle is missing', (path) => rmSync(join(path, 'img-1.lz4')), /img-2\.lz4 does not fit/],
    ['a stream of another checkpoint is there', (path) => writeFileSync(join(path, 'img-2.gz'), 'x'), /img-2\.gz does not fit/],
    ['a stream changed', (path) => writeFileSync(join(path, 'img-1.lz4'), ' ', { flag: 'a' }), /img-1\.lz4 is too long/],
    ['a stream is cut off', (path) => truncateSync(join(path, 'img-0.lz4'), 10), /is damaged/],
    ['the manifest is missing', (path) => rmSync(join(path, 'manifest.json')), /manifest\.json is missing/],
  ]
  it.each(shardDamages)('of several streams is refused when %s', async (_, damage, message) => {
    const path = await make('lz4', 3)
    expect(readdirSync(path).sort()).toEqual(['img-0.lz4', 'img-1.lz4', 'img-2.lz4', 'manifest.json'])
    damage(path)
    const refused = { code: 'IMAGE_CORRUPT', message: expect.stringMatching(message) as string }
    await expect(CheckpointReader.open(plainFiles, openRequest(path))).rejects.toMatchObject(refused)
    await expect(verify(plainFiles, openRequest(path))).rejects.toMatchObject(refused)
    expect(readdirSync(scratch)).toEqual([])
  })

  it('with a damaged manifest is refused', async () => {
    const path = await make()
    const manifest = join(path, 'manifest.json')
    writeFileSync(manifest, readFileSync(manifest, 'utf8').replace('"train"', '"trail"'))
    await expect(CheckpointReader.open(plainFiles, openRequest(path))).rejects.toMatchObject({
      code: 'IMAGE_CORRUPT',
      detail: { files: ['manifest.json'] },
    })
  })
})

describe('a path', () => {
  it('that does not exist', async () => {
    await expect(CheckpointReader.open(plainFiles, openRequest('/no/such'))).rejects.toMatchObject({ code: 'NO_SUCH_CHECKPOINT' })
  })

  it('of an unknown format', async () => {
    const path = join(directory, 'd.tar.jibberish')
    writeFileSync(path, '')
    await expect(CheckpointReader.open(plainFiles, openRequest(path))).rejects.toMatchObject({
      message: 'Unsupported compression format: .jibberish',
    })
  })

  it('of something else', async () => {
    await expect(CheckpointReader.open(plainFiles, openRequest('/dev/null'))).rejects.toMatchObject({ code: 'BAD_OPTIONS' })
    mkdirSync(join(directory, 'empty'))
    await expect(CheckpointReader.open(plainFiles, openRequest(join(directory, 'empty')))).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' })
  })

  it('of a dump that CRIU made alone is accepted, with a warning, on read-only media too', async () => {
    writeFileSync(join(directory, 'inventory.img'), 'x')
    chmodSync(directory, 0o500)
    const reader = await CheckpointReader.open(plainFiles, openRequest(directory))
    expect(reader.manifest).toBeUndefined()
    expect(reader.problems).toMatchObject([{ severity: 'warning', id: 'no-manifest' }])
    await reader.verifyPages()
    await reader.close()
    expect(readdirSync(directory)).toEqual(['inventory.img'])
  })
})

describe('what a crash has left', () => {
  const liveness = (alive: boolean) => ({ bootId: maker.bootId, isAlive: () => Promise.resolve(alive) })

  it('is removed when its maker is gone', async () => {
    const writer = await CheckpointWriter.create(plainFiles, request())
    await writer.add('inventory.img', Buffer.from('x'))
    mkdirSync(join(directory, 'other'))
    expect(await removeStale(directory, liveness(true))).toEqual([])
    expect(await removeStale(directory, liveness(false))).toHaveLength(1)
    expect(readdirSync(directory)).toEqual(['other'])
    closeSync(writer.stagingFd)
  })

  it('of another boot or machine is left alone for a day', async () => {
    await CheckpointWriter.create(plainFiles, request({ maker: { ...maker, bootId: 'ffffffff' } }))
    expect(await removeStale(directory, liveness(false))).toEqual([])
    const [entry = ''] = readdirSync(directory)
    spawnSync('touch', ['-d', '2 days ago', join(directory, entry)])
    expect(await removeStale(directory, liveness(false))).toEqual([entry])
  })

  it('is never followed out of its directory', async () => {
    const outside = join(directory, 'outside')
    mkdirSync(outside)
    writeFileSync(join(outside, 'precious'), 'x')
    symlinkSync(outside, join(directory, '.a.partial-4cea1dbc-1-1-a'))
    mkdirSync(join(directory, '.b.partial-4cea1dbc-1-1-a'))
    symlinkSync(outside, join(directory, '.b.partial-4cea1dbc-1-1-a', 'link'))
    await removeStale(directory, liveness(false))
    expect(readFileSync(join(outside, 'precious'), 'utf8')).toBe('x')
    expect(await removeStale('/no/such', liveness(false))).toEqual([])
  })
})

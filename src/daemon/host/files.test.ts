/** The real file functions below the checkpoint code: every format, another user, damage. */
import {
  closeSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  chmodSync,
  chownSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { COMPRESSIONS, type Compression } from '../images/layout.js'
import type { ManifestInput } from '../images/manifest.js'
import { CheckpointReader, verify } from '../images/reader.js'
import { peek } from '../images/sources.js'
import { CheckpointWriter } from '../images/writer.js'
import { files, writeFileAs } from './files.js'

const isRoot = process.getuid?.() === 0
const caller = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, groups: [] }
const nobody = { uid: 65534, gid: 65534, groups: [] }
const input: ManifestInput = {
  cedana: '0.1.0',
  createdAt: '2026-11-24T01:45:00.000Z',
  type: 'process',
  jid: '',
  target: { pid: 1, startTicks: '1', bootId: 'b' },
  stdio: { mode: 'none' },
  host: { id: '', name: '', kernel: '6.18', arch: 'x64', cpu: { vendor: '', model: '', flags: [] } },
  criuVersion: 40201,
  leaveRunning: false,
  criu: { tcpEstablished: false, shellJob: false, fileLocks: false, linkRemap: false, extUnixSockets: false, external: [] },
  details: {},
  sections: [],
}

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'files-'))
})
afterEach(() => {
  rmSync(directory, { recursive: true, force: true })
})

async function make(compression: Compression, { who = caller, streams = 0 } = {}): Promise<string> {
  const maker = { pid: process.pid, startTicks: '1', bootId: 'bbbbbbbb' }
  const writer = await CheckpointWriter.create(files, {
    caller: who,
    maker,
    directory,
    name: 'ck',
    compression,
    level: undefined,
    threads: 2,
    streams,
    memoryBytes: 64 << 20,
    background: false,
    estimateBytes: 0,
  })
  await writer.add('inventory.img', Buffer.from('inventory'))
  await writer.add('pages-1.img', Buffer.alloc(3_000_000, 'pages'))
  await writer.add('empty.img', Buffer.alloc(0))
  return (await writer.seal(input)).path
}
const { signal } = new AbortController()
const open = (path: string, who = caller, memoryBytes = 1 << 30) =>
  CheckpointReader.open(files, { caller: who, path, memoryBytes, spillDirectory: directory, signal })

const KINDS = COMPRESSIONS.flatMap((compression) => [0, 2, 11].map((streams) => [compression, streams] as const))

describe.each(KINDS)('with compression %s in %i streams', (compression, streams) => {
  const isDirectory = compression === 'none' && streams === 0

  it('a checkpoint is read as it was written', async () => {
    const path = await make(compression, { streams })
    expect(readdirSync(directory)).toHaveLength(1)
    for (const memoryBytes of [1 << 30, 1 << 20]) {
      const reader = await open(path, caller, memoryBytes)
      await reader.verifyImages()
      await reader.verifyPages()
      expect(readFileSync(`${reader.imagesPath}/pages-1.img`).equals(Buffer.alloc(3_000_000, 'pages'))).toBe(true)
      expect(lstatSync(`${reader.imagesPath}/pages-1.img`).isSymbolicLink()).toBe(!isDirectory && memoryBytes < 3_000_000)
      await reader.close()
    }
    const inside = await peek(files, { caller, path })
    expect(inside.manifest?.totalBytes).toBe(3_000_009)
    expect([...(await inside.list())].map(({ name, size }) => [name, size]).sort()).toContainEqual(['pages-1.img', 3_000_000])
    inside.close()
  })

  it('one cut off anywhere, or with a flipped bit, is refused', async () => {
    const path = await make(compression, { streams })
    const shard = streams > 0 && readdirSync(path).find((name) => name.startsWith('img-0'))
    const victim = shard ? join(path, shard) : isDirectory ? join(path, 'pages-1.img') : path
    const whole = readFileSync(victim)
    const look = async (): Promise<void> => {
      await expect(verify(files, { caller, path, signal })).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' })
      const reader = await open(path)
      await Promise.all([reader.verifyImages(), reader.verifyPages()]).finally(() => reader.close())
    }
    for (const part of [0, 0.1, 0.5, 0.99]) {
      writeFileSync(victim, whole)
      truncateSync(victim, Math.floor(whole.length * part))
      await expect(look()).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' })
    }
    const flipped = Buffer.from(whole)
    const middle = Math.floor(whole.length / 2)
    flipped[middle] = (flipped[middle] ?? 0) ^ 4
    writeFileSync(victim, flipped)
    await expect(look()).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' })
    expect(readdirSync(directory)).toHaveLength(1)
  })

  it.runIf(isRoot)('one made for another user belongs to that user', async () => {
    chownSync(directory, nobody.uid, nobody.gid)
    const path = await make(compression, { who: nobody, streams })
    const entries = isDirectory || streams > 0 ? [path, ...readdirSync(path).map((name) => join(path, name))] : [path]
    for (const entry of entries) expect(statSync(entry)).toMatchObject({ uid: nobody.uid, gid: nobody.gid })
    await (await open(path, nobody)).close()
  })
})

describe.runIf(isRoot)('as another user', () => {
  it('a directory that user may not write is refused', async () => {
    chmodSync(directory, 0o755)
    await expect(make('none', { who: nobody })).rejects.toMatchObject({ code: 'PERMISSION_DENIED' })
    expect(await files.mayWrite(nobody, directory)).toBe(false)
    expect(await files.mayWrite(caller, directory)).toBe(true)
    expect(readdirSync(directory)).toEqual([])
  })

  it('a checkpoint that user may not read is refused', async () => {
    const path = await make('tar')
    chmodSync(directory, 0o755)
    await expect(open(path, nobody)).rejects.toMatchObject({ code: 'PERMISSION_DENIED' })
  })
})

describe('a small file for a caller', () => {
  it('is written, and replaces what was there', async () => {
    const path = join(directory, 'pid')
    await writeFileAs(caller, path, '1234567', 0o644)
    await writeFileAs(caller, path, '12', 0o644)
    expect(readFileSync(path, 'utf8')).toBe('12')
  })

  it('says what could not be done', async () => {
    await expect(writeFileAs(caller, '/no/such/pid', '1', 0o644)).rejects.toMatchObject({
      code: 'STORAGE_FAILED',
      message: 'cannot write /no/such/pid: no such file or directory',
    })
  })
})

describe('descriptors', () => {
  it.each([0, 2])('do not leak (%i streams)', async (streams) => {
    const count = (): number => readdirSync('/proc/self/fd').length
    closeSync(await files.openAs(caller, undefined, directory, 0))
    const before = count()
    const path = await make('zstd', { streams })
    await (await open(path)).close()
    await expect(make('zstd', { streams })).rejects.toMatchObject({ code: 'CHECKPOINT_EXISTS' })
    truncateSync(streams > 0 ? join(path, 'img-0.zst') : path, 100)
    await expect(open(path)).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' })
    if (streams === 0) await expect(peek(files, { caller, path })).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' })
    expect(count()).toBe(before)
  })
})

import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { once } from 'node:events'
import { afterEach, describe, expect, test } from 'vitest'
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire'
import { native } from '../index.js'

const PAGE = 4096
const PRESENT = 4
const IN_PARENT = 1
const MAGICS = [0x54564319, 0x56084025]

interface Entry {
  readonly address: number
  readonly pages: number
  readonly flags?: number
  readonly unknown?: boolean
}

const fixed = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}
const record = (fields: readonly (readonly [number, number])[]): Buffer => {
  const writer = new BinaryWriter()
  for (const [number, value] of fields) writer.tag(number, WireType.Varint).uint64(value)
  const bytes = writer.finish()
  return Buffer.concat([fixed(bytes.length), bytes])
}
const pagemap = (id: number, entries: readonly Entry[]): Buffer =>
  Buffer.concat([
    ...MAGICS.map(fixed),
    record([[1, id]]),
    ...entries.map(
      ({ address, pages, flags = PRESENT, unknown }) =>
      record([[1, address], [2, pages], [4, flags], [5, pages], ...(unknown ? [[9, 1] as const] : [])]), // prettier-ignore
    ),
  ])
const plan = (entries: readonly Entry[], ranges: readonly number[], pid = 1) =>
  native.memoryPlan(pid, pagemap(7, entries), Float64Array.from(ranges))

describe('the plan for the pages of a process', () => {
  test('splits them at the borders of what is written directly, and keeps what is not in the file', () => {
    const entries = [
      { address: 0x10000, pages: 4 },
      { address: 0x20000, pages: 8 },
      { address: 0x40000, pages: 2, flags: 0 },
      { address: 0x7fff00000000, pages: 1 },
    ]
    const planned = plan(entries, [0x12000, 0x22000, 0x24000, 0x26000, 0x50000, 0x60000])
    expect(planned).toMatchObject({ pages: 'pages-7.img', size: 13 * PAGE, restSize: (2 + 2 + 2 + 1) * PAGE })
    expect(Buffer.from(planned?.restPagemap ?? [])).toEqual(
      pagemap(7, [
        { address: 0x10000, pages: 2 },
        { address: 0x22000, pages: 2 },
        { address: 0x26000, pages: 2 },
        { address: 0x40000, pages: 2, flags: 0 },
        { address: 0x7fff00000000, pages: 1 },
      ]),
    )
  })

  test('is none where pages are in another checkpoint, or something is not understood', () => {
    const range = [0x10000, 0x20000]
    expect(plan([{ address: 0x10000, pages: 1, flags: IN_PARENT }], range)).toBeNull()
    expect(plan([{ address: 0x10000, pages: 1, unknown: true }], range)).toBeNull()
    const whole = pagemap(7, [{ address: 0x10000, pages: 1 }])
    for (let size = 0; size < whole.length; size++) {
      const cut = native.memoryPlan(1, whole.subarray(0, size), Float64Array.from(range))
      // Cut between two records it is another pagemap.
      expect(cut === null || cut.size === 0).toBe(true)
    }
  })
})

describe('the writer', () => {
  const cleanups: (() => void)[] = []
  afterEach(() => {
    for (const cleanup of cleanups.splice(0)) cleanup()
  })

  /** A process with a buffer of its own, which it prints when it is asked. */
  async function target(pages: number): Promise<{ readonly child: ChildProcess; readonly address: number; content(): Promise<string> }> {
    const script = `
import ctypes, mmap, sys
memory = mmap.mmap(-1, ${pages * PAGE}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
sys.stdin.readline()
sys.stdout.write(memory[:].hex())`
    const child = spawn('python3', ['-c', script], { stdio: ['pipe', 'pipe', 'inherit'] })
    cleanups.push(() => child.kill('SIGKILL'))
    const [address] = (await once(child.stdout, 'data')) as [Buffer]
    const content = async (): Promise<string> => {
      let text = ''
      child.stdout.on('data', (data: Buffer) => (text += data.toString()))
      child.stdin.end('\n')
      await once(child, 'close')
      return text
    }
    return { child, address: Number(address.toString()), content }
  }

  function pagesFile(content: Uint8Array): number {
    const directory = mkdtempSync(join(tmpdir(), 'cedana-pages-'))
    writeFileSync(join(directory, 'pages-7.img'), content)
    const fd = openSync(directory, 'r')
    cleanups.push(() => {
      closeSync(fd)
      rmSync(directory, { recursive: true })
    })
    return fd
  }

  const write = (fd: number, writer: ReturnType<typeof native.memoryWriter>) =>
    native.copyImages(fd, ['pages-7.img'], null, null, null, writer)

  test('waits for the tree, writes what is planned and nothing else, and digests all', async () => {
    const { child, address, content } = await target(6)
    const pages = Buffer.concat([1, 2, 3, 4].map((value) => Buffer.alloc(PAGE, value)))
    const fd = pagesFile(pages)
    const entries = [
      { address, pages: 2 },
      { address: address + 3 * PAGE, pages: 2 },
    ]
    const planned = plan(entries, [address + PAGE, address + 4 * PAGE], child.pid)
    const writer = native.memoryWriter([planned!.plan])
    const written = write(fd, writer)
    native.memoryWriterStart(writer, child.pid!)
    expect((await written).files).toEqual([{ name: 'pages-7.img', size: 4 * PAGE, digest: native.digestBytes(pages) }])
    const expected = [0, 2, 0, 3, 0, 0].map((value) => Buffer.alloc(PAGE, value).toString('hex')).join('')
    expect(await content()).toBe(expected)
    native.memoryWriterStop(writer)
  })

  test.each(['tar', 'lz4', 'zstd'])('by several threads from an archive (%s), whose rest goes into a directory before', async (format) => {
    const count = 2600 // three leaves
    const { child, address, content } = await target(count)
    const pages = Buffer.concat(Array.from({ length: count }, (_, at) => Buffer.alloc(PAGE, at % 251)))
    const fd = pagesFile(pages)
    const other = Buffer.from('a small one')
    writeFileSync(`/proc/self/fd/${fd}/core-1.img`, other)
    const images = [
      { name: 'pages-7.img', size: pages.length },
      { name: 'core-1.img', size: other.length },
    ]
    const archive = openSync(`/proc/self/fd/${fd}/archive`, 'wx+')
    cleanups.push(() => closeSync(archive))
    const options = { sharded: false, format, level: null, threads: 2, memoryBytes: 64 << 20, background: false, spillFd: null, offset: 0 }
    const packer = native.packOpen({ outputFds: [archive], ...options })
    await native.packAdd(packer, fd, images.map(({ name }) => name), '') // prettier-ignore
    await native.packFinish(packer)
    expect(native.archiveCanSkip(archive, format, null)).toBe(true)

    // All but the first page and the last two.
    const planned = plan([{ address, pages: count }], [address + PAGE, address + (count - 2) * PAGE], child.pid)
    const writer = native.memoryWriter([planned!.plan])
    const rest = native.imagesMake(64 << 20, tmpdir())
    const filled = await native.unpackArchive(archive, format, null, images, rest.images, null, null, writer)
    expect(filled.files).toEqual([{ ...images[1], digest: native.digestBytes(other) }])
    const first = Buffer.concat([pages.subarray(0, PAGE), pages.subarray(-2 * PAGE)])
    expect(readFileSync(`/proc/self/fd/${rest.directoryFd}/pages-7.img`).equals(first)).toBe(true)
    expect(readFileSync(`/proc/self/fd/${rest.directoryFd}/core-1.img`)).toEqual(other)
    native.imagesClose(rest.images)

    native.memoryWriterStart(writer, child.pid!)
    const written = await native.unpackArchive(archive, format, null, images, null, null, null, writer)
    expect(written.files).toEqual([{ ...images[0], digest: native.digestBytes(pages) }])
    const expected = Buffer.concat([Buffer.alloc(PAGE), pages.subarray(PAGE, -2 * PAGE), Buffer.alloc(2 * PAGE)])
    expect((await content()) === expected.toString('hex')).toBe(true)
    native.memoryWriterStop(writer)
  })

  test('a process that is not there, or has other memory, and a tree that never comes', async () => {
    const { child, address } = await target(1)
    const fd = pagesFile(Buffer.alloc(2 * PAGE, 1))
    const writing = (pid: number, at: number) => {
      const writer = native.memoryWriter([plan([{ address: at, pages: 2 }], [at, at + 2 * PAGE], pid)!.plan])
      return { writer, written: write(fd, writer) }
    }
    const other = writing(child.pid! + 1, address)
    native.memoryWriterStart(other.writer, child.pid!)
    await expect(other.written).rejects.toMatchObject({ code: 'ESRCH' })
    const elsewhere = writing(child.pid!, PAGE)
    native.memoryWriterStart(elsewhere.writer, child.pid!)
    await expect(elsewhere.written).rejects.toMatchObject({ code: 'EFAULT' })
    const never = writing(child.pid!, address)
    native.memoryWriterStop(never.writer)
    await expect(never.written).rejects.toMatchObject({ code: 'ECANCELED' })
    const ended = writing(child.pid!, address)
    child.kill('SIGKILL')
    await once(child, 'exit')
    native.memoryWriterStart(ended.writer, child.pid!)
    await expect(ended.written).rejects.toMatchObject({ code: 'ESRCH' })
    for (const { writer } of [other, elsewhere, ended]) native.memoryWriterStop(writer)
  })

  test('a file that is not what the pagemap says is refused', async () => {
    const fd = pagesFile(Buffer.alloc(PAGE))
    const writer = native.memoryWriter([plan([{ address: 0x10000, pages: 2 }], [0x10000, 0x12000])!.plan])
    await expect(write(fd, writer)).rejects.toMatchObject({ code: 'EBADMSG' })
    expect(readFileSync(`/proc/self/fd/${fd}/pages-7.img`)).toHaveLength(PAGE)
  })
})

import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { plainFiles } from '../../../test/support/plain-files.js'
import { readContents, readNeeds, type Contents } from './contents.js'
import { FILES, PSTREE, readImage } from './criu-images.js'
import { peek } from './sources.js'

/**
 * A dump that CRIU 4.2.1 made of a Python program with two threads, a child and one of each kind of descriptor; without its pages.
 * Unit tests need neither root nor CRIU.
 */
const DUMP = fileURLToPath(new URL('../../../test/fixtures/plain-dump', import.meta.url))
const caller = { uid: 0, gid: 0, groups: [] }

async function inside<T>(path: string, look: (source: Awaited<ReturnType<typeof peek>>) => Promise<T>): Promise<T> {
  const source = await peek(plainFiles, { caller, path })
  try {
    return await look(source)
  } finally {
    source.close()
  }
}

describe('contents of a plain CRIU dump', () => {
  const read = (): Promise<Contents> => inside(DUMP, readContents)

  it('show the process tree', async () => {
    const { processes, totals } = await read()
    expect(processes).toMatchObject([
      {
        pid: 22551,
        parentPid: 0,
        session: 22551,
        processGroup: 22551,
        name: 'python3',
        state: 'running',
        threads: [22551, 22553, 22554],
        uids: [0, 0, 0, 0],
      },
      {
        pid: 22555,
        parentPid: 22551,
        session: 22551,
        threads: [22555],
        executable: '/usr/bin/python3.11',
        workingDirectory: '/srv/app',
        rootDirectory: '/',
      },
    ])
    expect(totals).toMatchObject({ processes: 2, threads: 4, files: 21, sockets: 16 })
  })

  it('show memory by kind, adding up', async () => {
    const { processes, totals } = await read()
    const memory = processes[0]?.memory
    expect(memory).toMatchObject({ heapBytes: 1323008, stackBytes: 135168, sharedBytes: 1048576, storedBytes: 8634368, parentBytes: 0 })
    const { mappedBytes = 0, heapBytes = 0, stackBytes = 0, sharedBytes = 0, fileBytes = 0, anonymousBytes = 0 } = memory ?? {}
    expect(heapBytes + stackBytes + sharedBytes + fileBytes + anonymousBytes).toBe(mappedBytes)
    // Two processes, and two pieces of shared memory.
    expect(totals.storedBytes).toBe(2 * 8634368 + 4096 + 8192)
  })

  it('show open files', async () => {
    const files = (await read()).processes[0]?.files
    expect(files).toEqual(
      expect.arrayContaining([
        { fd: 1, kind: 'regular', path: '/srv/app/out.log', flags: 0o100001, position: 6, size: 6 },
        expect.objectContaining({ fd: 12, kind: 'pipe', path: 'pipe:[224012]' }),
        expect.objectContaining({ fd: 15, path: '/srv/app/#1474877 (deleted)', size: 5000 }),
        expect.objectContaining({ fd: 16, kind: 'memfd', path: '/memfd:mine', position: 8192, size: 8192 }),
        expect.objectContaining({ fd: 17, kind: 'epoll' }),
      ]),
    )
  })

  it('show sockets', async () => {
    expect((await read()).processes[0]?.sockets).toEqual([
      { fd: 3, family: 'inet', kind: 'stream', state: 'LISTEN', local: '127.0.0.1:17017', remote: '0.0.0.0:0' },
      { fd: 4, family: 'inet', kind: 'stream', state: 'ESTABLISHED', local: '127.0.0.1:44694', remote: '127.0.0.1:17017' },
      { fd: 5, family: 'inet', kind: 'stream', state: 'ESTABLISHED', local: '127.0.0.1:17017', remote: '127.0.0.1:44694' },
      { fd: 6, family: 'inet6', kind: 'stream', state: 'LISTEN', local: '[::1]:56529', remote: '[::]:0' },
      { fd: 7, family: 'unix', kind: 'stream', state: 'LISTEN', local: '/srv/app/u.sock', remote: '' },
      { fd: 8, family: 'unix', kind: 'stream', state: 'CONNECTED', local: '', remote: '' },
      { fd: 9, family: 'unix', kind: 'stream', state: 'CONNECTED', local: '', remote: '' },
      { fd: 11, family: 'inet', kind: 'datagram', state: 'CLOSE', local: '127.0.0.1:49965', remote: '0.0.0.0:0' },
    ])
  })

  it('say what a restore will look for', async () => {
    const { files, addresses } = await inside(DUMP, readNeeds)
    expect(files).toEqual(
      expect.arrayContaining([
        { path: '/srv/app/data.txt', size: 5, mode: 0o100644 },
        { path: '/srv/app', size: undefined, mode: 0o040755 },
      ]),
    )
    expect(files.map(({ path }) => path)).not.toContain('/srv/app/#1474877')
    expect(addresses).toEqual([
      { protocol: 'tcp', address: '127.0.0.1', port: 17017, isShared: false },
      { protocol: 'tcp', address: '::1', port: 56529, isShared: false },
      { protocol: 'udp', address: '127.0.0.1', port: 49965, isShared: false },
    ])
  })

  it('without a tree are refused', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'contents-'))
    for (const name of readdirSync(DUMP)) if (name !== 'pstree.img') copyFileSync(join(DUMP, name), join(directory, name))
    await expect(inside(directory, readContents)).rejects.toMatchObject({ code: 'IMAGE_CORRUPT', detail: { files: ['pstree.img'] } })
    writeFileSync(join(directory, 'pstree.img'), readFileSync(join(DUMP, 'files.img')))
    await expect(inside(directory, readContents)).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' })
    rmSync(directory, { recursive: true })
  })
})

describe('an image', () => {
  const bytes = readFileSync(join(DUMP, 'files.img'))

  it('that is cut off anywhere within a record is refused', () => {
    const whole = readImage(FILES, 'files.img', bytes).length
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), (length) => {
        try {
          expect(readImage(FILES, 'files.img', bytes.subarray(0, length)).length).toBeLessThan(whole)
        } catch (thrown) {
          expect(thrown).toMatchObject({ code: 'IMAGE_CORRUPT', detail: { files: ['files.img'] } })
        }
      }),
    )
  })

  it('of garbage never fails otherwise than as damaged', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (tail) => {
        const head = Buffer.alloc(12)
        head.writeUInt32LE(0x54564319, 0)
        head.writeUInt32LE(PSTREE.magic, 4)
        head.writeUInt32LE(tail.length, 8)
        try {
          readImage(PSTREE, 'pstree.img', Buffer.concat([head, tail]))
        } catch (thrown) {
          expect(thrown).toMatchObject({ code: 'IMAGE_CORRUPT' })
        }
      }),
    )
  })
})

/** With the addon: what is written has to be a real tar. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { files } from '../host/files.js'
import { readContents } from './contents.js'
import { ArchiveExport } from './export.js'
import { peek, type ImageSource } from './reader.js'

const PSTREE = fileURLToPath(new URL('../../../test/fixtures/plain-dump/pstree.img', import.meta.url))
const caller = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, groups: [] }
const maker = { pid: process.pid, startTicks: '1', bootId: '4cea1dbc-fe14-4d91-bec7-6decc3cf3961' }

let scratch: string
let images: string
beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), 'export-'))
  images = join(scratch, 'images')
  mkdirSync(images)
})
afterEach(() => rmSync(scratch, { recursive: true }))

const CONTAINER = {
  'config.dump': JSON.stringify({
    id: 'abc',
    name: 'web',
    rootfsImageName: 'localhost/web:1',
    runtime: 'runc',
    createdTime: '2026-01-02T03:04:05Z',
  }),
  'spec.dump': JSON.stringify({ ociVersion: '1.0.2', annotations: { 'io.container.manager': 'libpod' } }),
  'inventory.img': 'inventory',
}
const fill = (contents: Readonly<Record<string, string | Uint8Array>>): void => {
  for (const [name, content] of Object.entries(contents)) writeFileSync(join(images, name), content)
}

async function exported(name: string, isGivenUp = false): Promise<string> {
  const path = join(scratch, name)
  const source = await peek(files, { caller, path: images })
  const directory = await open(images)
  const archive = await ArchiveExport.create(files, { caller, maker, path, threads: 2, memoryBytes: 1 << 22 })
  try {
    if (!isGivenUp) await archive.write(source, directory.fd)
  } finally {
    await archive.close()
    await directory.close()
    source.close()
  }
  return path
}

async function inside<T>(path: string, look: (source: ImageSource) => Promise<T>): Promise<T> {
  const source = await peek(files, { caller, path })
  try {
    return await look(source)
  } finally {
    source.close()
  }
}

describe('an exported checkpoint', () => {
  it.each(['x.tar', 'x.tar.gz', 'x.tar.zst'])('has the same files for us, whatever they are (%s, property)', async (name) => {
    const image = fc.stringMatching(/^[a-z]{1,8}-[0-9]{1,3}\.img$/)
    const extra = fc.constantFrom('rootfs-diff.tar', 'deleted.files', 'network.status', 'descriptors.json', 'manifest.json.bak')
    const content = fc.uint8Array({ maxLength: 20_000 })
    await fc.assert(
      fc.asyncProperty(fc.dictionary(fc.oneof(image, extra), content, { maxKeys: 12 }), async (contents) => {
        for (const entry of readdirSync(images)) rmSync(join(images, entry))
        fill({ ...CONTAINER, ...contents })
        const path = await exported(name)
        const names = readdirSync(images).sort()
        await inside(path, async (source) => {
          expect((await source.list()).map((file) => file.name).sort()).toEqual(names)
          const read = await source.read(names)
          for (const one of names) expect(Buffer.compare(read.get(one) ?? Buffer.alloc(0), readFileSync(join(images, one))), one).toBe(0)
        })
        rmSync(path)
      }),
      { numRuns: 12 },
    )
  })

  it('says of which container it is', async () => {
    fill({ ...CONTAINER, 'pstree.img': readFileSync(PSTREE), 'rootfs-diff.tar': 'diff', 'deleted.files': '["/bin/ps"]' })
    const { container } = await inside(await exported('x.tar'), readContents)
    expect(container).toEqual({
      id: 'abc',
      name: 'web',
      image: 'localhost/web:1',
      runtime: 'runc',
      engine: 'podman',
      pod: '',
      podNamespace: '',
      createdTime: '2026-01-02T03:04:05Z',
      rootfsDiffBytes: 4,
      deletedFiles: ['/bin/ps'],
    })
    writeFileSync(join(images, 'config.dump'), '{"id":')
    await expect(inside(images, readContents)).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' })
  })

  it('is laid out as others expect it: what describes the container at the top, small things first', async () => {
    fill({ ...CONTAINER, 'pages-1.img': 'p', 'core-1.img': 'c', 'rootfs-diff.tar': 'd', 'manifest.other': '{}', 'criu-dump.log': '' })
    expect(execFileSync('tar', ['-tf', await exported('x.tar')], { encoding: 'utf8' }).split('\n')).toEqual([
      'config.dump',
      'spec.dump',
      'checkpoint/',
      'checkpoint/core-1.img',
      'checkpoint/criu-dump.log',
      'checkpoint/inventory.img',
      'checkpoint/manifest.other',
      'checkpoint/pages-1.img',
      'rootfs-diff.tar',
      '',
    ])
  })

  it('is refused of a process, in a compression nobody else reads, and over a file that is there; nothing is left', async () => {
    fill({ 'inventory.img': 'inventory' })
    await expect(exported('x.tar')).rejects.toMatchObject({
      code: 'TARGET_UNFIT',
      message: expect.stringContaining('no checkpoint of a container') as unknown,
    })
    fill(CONTAINER)
    for (const name of ['x.tar.lz4', 'x.tar.zlib']) await expect(exported(name)).rejects.toMatchObject({ code: 'BAD_OPTIONS' })
    await expect(exported('x.rar')).rejects.toMatchObject({ code: 'FORMAT_UNSUPPORTED' })
    writeFileSync(join(scratch, 'x.tar'), 'mine')
    await expect(exported('x.tar')).rejects.toMatchObject({ code: 'CHECKPOINT_EXISTS' })
    expect(readFileSync(join(scratch, 'x.tar'), 'utf8')).toBe('mine')
    // Given up before it is whole.
    await exported('y.tar', true)
    expect(readdirSync(scratch).sort()).toEqual(['images', 'x.tar'])
  })
})

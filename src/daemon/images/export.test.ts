/** With the addon: what is written has to be a real tar. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { files } from '../host/files.js'
import { readContents } from './contents.js'
import { ArchiveExport, type ExportFormat } from './export.js'
import type { ImageSource } from './files.js'
import { CheckpointReader, verify } from './reader.js'
import { peek } from './sources.js'

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

interface Asked {
  readonly isGivenUp?: boolean
  readonly form?: ExportFormat
  readonly image?: string
}

async function exported(name: string, { isGivenUp = false, form = 'tar', image = '' }: Asked = {}): Promise<string> {
  const path = join(scratch, name)
  const source = await peek(files, { caller, path: images })
  await using directory = await open(images)
  const archive = await ArchiveExport.create(files, { caller, maker, path, form, image, threads: 2, memoryBytes: 1 << 22 })
  try {
    if (!isGivenUp) await archive.write(source, directory.fd, source.manifest)
  } finally {
    await archive.close()
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
    await exported('y.tar', { isGivenUp: true })
    expect(readdirSync(scratch).sort()).toEqual(['images', 'x.tar'])
  })
})

it('an archive of others with two files of one name is damaged', async () => {
  fill({ 'inventory.img': 'inventory', 'core-1.img': 'core' })
  const path = join(scratch, 'twice.tar')
  execFileSync('tar', ['-C', images, '-cf', path, 'inventory.img', 'core-1.img'])
  execFileSync('tar', ['-C', images, '-rf', path, 'core-1.img'])
  const request = { caller, path, memoryBytes: 1 << 30, spillDirectory: scratch, signal: new AbortController().signal }
  await expect(CheckpointReader.open(files, request)).rejects.toMatchObject({
    code: 'IMAGE_CORRUPT',
    message: `${path} is damaged: it has two files of one name`,
  })
})

describe('an OCI archive', () => {
  /** The layout, unpacked by tar. */
  function unpacked(path: string): string {
    const directory = mkdtempSync(join(scratch, 'layout-'))
    execFileSync('tar', ['-C', directory, '-xf', path])
    return directory
  }
  const json = (path: string): unknown => JSON.parse(readFileSync(path, 'utf8')) as unknown
  const blob = (layout: string, digest: string): string => join(layout, 'blobs/sha256', digest.slice('sha256:'.length))
  interface Index {
    readonly manifests: readonly { readonly digest: string; readonly annotations?: object }[]
  }
  interface Manifest {
    readonly config: { readonly digest: string }
    readonly layers: readonly { readonly digest: string; readonly size: number }[]
    readonly annotations: object
  }

  it('is an image whose one layer is the archive, with the names that others look for', async () => {
    fill({ ...CONTAINER, 'pages-1.img': Buffer.alloc(3_000_000, 'p') })
    const layout = unpacked(await exported('x.tar', { form: 'oci-archive' }))
    expect(json(join(layout, 'oci-layout'))).toEqual({ imageLayoutVersion: '1.0.0' })
    const index = json(join(layout, 'index.json')) as Index
    expect(index.manifests).toMatchObject([{ annotations: { 'io.containerd.image.name': 'localhost/checkpoint-web:latest' } }])
    for (const name of readdirSync(join(layout, 'blobs/sha256')))
      expect(execFileSync('sha256sum', [join(layout, 'blobs/sha256', name)], { encoding: 'utf8' })).toMatch(new RegExp(`^${name} `))
    const manifest = json(blob(layout, index.manifests[0]?.digest ?? '')) as Manifest
    expect(manifest.annotations).toMatchObject({
      'io.kubernetes.cri-o.annotations.checkpoint.name': 'web',
      'io.podman.annotations.checkpoint.name': 'web',
      'org.criu.checkpoint.container.name': 'web',
      'org.criu.checkpoint.rootfsImageName': 'localhost/web:1',
    })
    const [layer = { digest: '', size: 0 }] = manifest.layers
    expect(json(blob(layout, manifest.config.digest))).toMatchObject({ rootfs: { diff_ids: [layer.digest] } })
    expect(execFileSync('tar', ['-tf', blob(layout, layer.digest)], { encoding: 'utf8' })).toMatch('config.dump\nspec.dump\ncheckpoint/\n')
  })

  it('is read like the archive in it: a file, a directory, with its layer compressed', async () => {
    const contents = { ...CONTAINER, 'pstree.img': readFileSync(PSTREE), 'pages-1.img': Buffer.alloc(5_000_000, 'p') }
    fill(contents)
    const names = Object.keys(contents).sort()
    const path = await exported('x.tar', { form: 'oci-archive', image: 'localhost/mine' })
    const layout = unpacked(path)
    const compressed = unpacked(path)
    const index = json(join(compressed, 'index.json')) as Index
    const [first] = index.manifests
    const manifest = json(blob(compressed, first?.digest ?? '')) as Manifest
    const [layer = { digest: '', size: 0 }] = manifest.layers
    const add = (bytes: Buffer): { digest: string; size: number } => {
      const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`
      writeFileSync(blob(compressed, digest), bytes)
      return { digest, size: bytes.length }
    }
    const zipped = add(execFileSync('gzip', ['-c', blob(compressed, layer.digest)]))
    const top = add(Buffer.from(JSON.stringify({ ...manifest, layers: [zipped] })))
    writeFileSync(join(compressed, 'index.json'), JSON.stringify({ manifests: [{ ...first, ...top }] }))
    execFileSync('tar', ['-C', compressed, '-cf', join(scratch, 'gz.tar'), '.'])
    for (const one of [path, layout, compressed, join(scratch, 'gz.tar')]) {
      await inside(one, async (source) => {
        expect((await source.list()).map((file) => file.name).sort(), one).toEqual(names)
        expect((await readContents(source)).container).toMatchObject({ name: 'web' })
      })
      const request = { caller, path: one, memoryBytes: 1 << 30, spillDirectory: scratch, signal: new AbortController().signal }
      const reader = await CheckpointReader.open(files, request)
      expect(readFileSync(`${reader.imagesPath}/pages-1.img`).equals(contents['pages-1.img'])).toBe(true)
      await reader.close()
    }
  })

  it('is refused when it is damaged, not of a checkpoint, or of several', async () => {
    fill({ ...CONTAINER, 'pages-1.img': Buffer.alloc(1_000_000, 'p') })
    const path = await exported('x.tar', { form: 'oci-archive', image: 'localhost/one:1' })
    const request = { caller, path, signal: new AbortController().signal }
    const bytes = readFileSync(path)
    const changed = join(scratch, 'changed.tar')
    const at = bytes.indexOf('p'.repeat(4096))
    writeFileSync(changed, Buffer.concat([bytes.subarray(0, at), Buffer.from('q'), bytes.subarray(at + 1)]))
    const open = CheckpointReader.open(files, { ...request, path: changed, memoryBytes: 1 << 30, spillDirectory: scratch })
    await expect(open).rejects.toMatchObject({ code: 'IMAGE_CORRUPT', message: expect.stringContaining('has changed content') as unknown })
    const cut = join(scratch, 'cut.tar')
    writeFileSync(cut, bytes.subarray(0, bytes.length / 2))
    await expect(verify(files, { ...request, path: cut })).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' })

    const layout = unpacked(path)
    const index = json(join(layout, 'index.json')) as Index
    const manifest = json(blob(layout, index.manifests[0]?.digest ?? '')) as Manifest
    const replace = (manifests: readonly object[]): void => {
      const described = manifests.map((one, number) => {
        const text = JSON.stringify(one)
        const digest = `sha256:${createHash('sha256').update(text).digest('hex')}`
        writeFileSync(blob(layout, digest), text)
        return { digest, size: text.length, annotations: { 'org.opencontainers.image.ref.name': `image-${number}` } }
      })
      writeFileSync(join(layout, 'index.json'), JSON.stringify({ manifests: described }))
    }
    replace([{ ...manifest, layers: [...manifest.layers, ...manifest.layers] }])
    await expect(peek(files, { caller, path: layout })).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' })
    const other = { ...manifest.layers[0], digest: manifest.config.digest }
    replace([manifest, { ...manifest, layers: [other] }])
    await expect(peek(files, { caller, path: layout })).rejects.toMatchObject({
      code: 'BAD_OPTIONS',
      message: expect.stringContaining('image-0, image-1') as unknown,
    })
    rmSync(join(layout, 'index.json'))
    await expect(peek(files, { caller, path: layout })).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' })
    execFileSync('gzip', ['-k', path])
    await expect(peek(files, { caller, path: `${path}.gz` })).rejects.toMatchObject({ code: 'FORMAT_UNSUPPORTED' })
  })

  it('has a name that fits, and no compression of its own', async () => {
    fill(CONTAINER)
    for (const [name, asked] of [
      ['x.tar.gz', { form: 'oci-archive' }],
      ['x.tar', { form: 'oci-archive', image: 'No Such Name' }],
      ['x.tar', { image: 'localhost/x' }],
    ] as const)
      await expect(exported(name, asked)).rejects.toMatchObject({ code: 'BAD_OPTIONS' })
    expect(readdirSync(scratch)).toEqual(['images'])
  })
})

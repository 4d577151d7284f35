/** A look inside a checkpoint, wherever its files are: nothing is unpacked. */
import { closeSync, lstatSync } from 'node:fs'
import { open, readdir } from 'node:fs/promises'
import { CedanaError } from '../../plugins/contract/errors.js'
import { unreadable } from './damage.js'
import { attempt, errnoOf } from './failures.js'
import { at, OPEN_UNTRUSTED, type ArchiveMember, type Files, type ImageFile, type ImageSource, type StoredArchive } from './files.js'
import type { Shards } from './layout.js'
import { decodeManifest, MANIFEST, MAX_MANIFEST_BYTES, type Manifest } from './manifest.js'
import { LAYOUT } from './oci.js'
import { openPath, reopened, type Opened, type ReadRequest } from './opened.js'
import { isState, STATE } from './state.js'

const INVENTORY = 'inventory.img'

export class DirectorySource implements ImageSource {
  constructor(
    private readonly fd: number,
    readonly path: string,
  ) {}

  async list(): Promise<readonly ImageFile[]> {
    return attempt(`read ${this.path}`, async () => {
      const entries = await readdir(at(this.fd, '.'), { withFileTypes: true })
      const files = entries.filter((entry) => entry.isFile())
      // By a thread, each would take longer than all of them do here.
      return files.map(({ name }) => ({ name, size: lstatSync(at(this.fd, name)).size }))
    })
  }

  async read(names: readonly string[]): Promise<ReadonlyMap<string, Uint8Array>> {
    const read = (name: string): Promise<Uint8Array | undefined> =>
      attempt(`read ${name} of ${this.path}`, () => readIfThere(at(this.fd, name)))
    const contents = await Promise.all(names.map(async (name) => [name, await read(name)] as const))
    return new Map(contents.flatMap(([name, content]) => (content ? [[name, content]] : [])))
  }
}

async function readIfThere(path: string): Promise<Uint8Array | undefined> {
  try {
    await using file = await open(path, OPEN_UNTRUSTED)
    return await file.readFile()
  } catch (thrown) {
    if (errnoOf(thrown) === 'ENOENT') return undefined
    throw thrown
  }
}

/** Of each small image. */
const KEPT_BYTES = 4 << 20

export class ArchiveSource implements ImageSource {
  constructor(
    private readonly files: Files,
    private readonly archive: StoredArchive,
    readonly path: string,
    private readonly isShard = false,
  ) {}

  #looked: Promise<ReadonlyMap<string, ArchiveMember>> | undefined

  /** To find anything most of an archive has to be read: it is read once, and what may be asked for next is kept. */
  #look(): Promise<ReadonlyMap<string, ArchiveMember>> {
    return (this.#looked ??= this.#members(null, KEPT_BYTES).then((members) => new Map(members.map((member) => [member.name, member]))))
  }

  async list(): Promise<readonly ImageFile[]> {
    return [...(await this.#look()).values()].map(({ name, size }) => ({ name, size }))
  }

  async read(names: readonly string[]): Promise<ReadonlyMap<string, Uint8Array>> {
    const known = await this.#look()
    const wanted = names.flatMap((name) => known.get(name) ?? [])
    const cut = wanted.filter(({ size, content }) => content.length < size).map(({ name }) => name)
    const others = cut.length === 0 ? [] : await this.#members(cut, MAX_MANIFEST_BYTES)
    return new Map([...wanted, ...others].map(({ name, content }) => [name, content]))
  }

  async #members(names: readonly string[] | null, maxBytes: number) {
    try {
      return await reopened(this.archive.fd, (fd) => this.files.archiveRead({ ...this.archive, fd }, this.isShard, names, maxBytes))
    } catch (thrown) {
      throw unreadable(thrown, this.path)
    }
  }
}

/** The manifest is beside the shards; the images that are ever looked into are in the first of them. */
export class ShardSource implements ImageSource {
  constructor(
    private readonly files: Files,
    private readonly opened: Opened,
    private readonly shards: Shards,
    private readonly manifest: Manifest,
  ) {}

  get path(): string {
    return this.opened.path
  }

  list(): Promise<readonly ImageFile[]> {
    return Promise.resolve(this.manifest.files)
  }

  async read(names: readonly string[]): Promise<ReadonlyMap<string, Uint8Array>> {
    const [first = ''] = this.shards.names
    await using shard = await attempt(`read ${first} of ${this.path}`, () => open(at(this.opened.fd, first), OPEN_UNTRUSTED))
    return await new ArchiveSource(this.files, { fd: shard.fd, format: this.shards.format, range: undefined }, this.path, true).read(names)
  }
}

/** A look inside a checkpoint without unpacking it. */
export interface Peek extends ImageSource {
  readonly manifest: Manifest | undefined
  close(): void
}

export async function peek(files: Files, request: ReadRequest): Promise<Peek> {
  const opened = await openPath(files, request)
  try {
    const { source, found } = await look(files, opened)
    return {
      path: opened.path,
      manifest: found?.manifest,
      list: () => source.list(),
      read: (names) => source.read(names),
      close: () => closeSync(opened.fd),
    }
  } catch (thrown) {
    closeSync(opened.fd)
    throw thrown
  }
}

export async function look(
  files: Files,
  opened: Opened,
): Promise<{ readonly source: ImageSource; readonly found: FoundManifest | undefined }> {
  if (opened.shards) {
    const found = await shardsManifest(files, opened)
    return { source: new ShardSource(files, opened, opened.shards, found.manifest), found }
  }
  const source = opened.format
    ? new ArchiveSource(files, { ...opened, format: opened.format }, opened.path)
    : new DirectorySource(opened.fd, opened.path)
  return { source, found: await readManifest(files, source) }
}

export async function shardsManifest(files: Files, opened: Opened): Promise<FoundManifest> {
  const bytes = (await new DirectorySource(opened.fd, opened.path).read([MANIFEST])).get(MANIFEST)
  if (!bytes) throw manifestMissing(opened.path)
  return decodeFound(files, bytes)
}

export interface FoundManifest {
  readonly manifest: Manifest
  /** Of the file. */
  readonly digest: string
}

const decodeFound = (files: Files, bytes: Uint8Array): FoundManifest => ({
  manifest: decodeManifest(bytes, (part) => files.digestBytes(part)),
  digest: files.digestBytes(bytes),
})

const manifestMissing = (path: string): CedanaError =>
  new CedanaError('IMAGE_CORRUPT', `${path} is damaged: ${MANIFEST} is missing`, {
    detail: { files: [MANIFEST] },
    hint: 'use another checkpoint',
  })

export async function readManifest(files: Files, source: ImageSource): Promise<FoundManifest | undefined> {
  const found = await source.read([MANIFEST, STATE])
  const bytes = found.get(MANIFEST)
  if (bytes) return decodeFound(files, bytes)
  const state = found.get(STATE)
  // Other programs write a file of that name too, of another shape.
  if (state && isState(state)) throw manifestMissing(source.path)
  const names = (await source.list()).map(({ name }) => name)
  if (names.includes(INVENTORY)) return undefined
  if (names.includes(LAYOUT))
    throw new CedanaError('FORMAT_UNSUPPORTED', `${source.path} is a compressed OCI archive`, { hint: 'unpack it to a plain .tar first' })
  const message = `${source.path} is no checkpoint: it has neither ${MANIFEST} nor ${INVENTORY}`
  throw new CedanaError('IMAGE_CORRUPT', message, { detail: { files: [MANIFEST] } })
}

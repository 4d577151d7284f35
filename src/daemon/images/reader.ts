/**
 * Opens checkpoints: as the caller, without following links, without changing anything of them. For a restore an archive, or shards, are unpacked
 * into memory, but for pages that go into the restored tree by another way (direct-memory); for a look inside (`peek`) and for `verify` they are
 * read where they are.
 */
import { constants, closeSync, fstatSync, lstatSync, openSync, readSync } from 'node:fs'
import { open, readdir, writeFile } from 'node:fs/promises'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Problem } from '../../plugins/contract/plan.js'
import { type DirectMemory, directMemory, WORTHWHILE_BYTES } from './direct-memory.js'
import { attempt, errnoOf, failure } from './failures.js'
import {
  at,
  OPEN_UNTRUSTED,
  type ArchiveMember,
  type FileDigest,
  type FileRange,
  type Files,
  type Ids,
  type ImageDirectory,
  type ImageFile,
  type ImageSource,
  type MemoryWriter,
  type StoredArchive,
  type Unpacked,
  type UnpackOptions,
} from './files.js'
import { findShards, formatOf, MAGIC_BYTES, requireLocal, type ArchiveFormat, type Shards } from './layout.js'
import { findCheckpoint, LAYOUT, MAX_BLOB_BYTES } from './oci.js'
import { isState, STATE } from './state.js'
import { decodeManifest, MANIFEST, MAX_MANIFEST_BYTES, type Manifest } from './manifest.js'

const INVENTORY = 'inventory.img'
/** Named in the message; the rest is counted. */
const MAX_NAMED = 3

export interface ReadRequest {
  readonly caller: Ids
  readonly path: string
}
export interface OpenRequest extends ReadRequest {
  /** What has to be unpacked may take so much memory; files beyond that go to nameless ones in `spillDirectory`. */
  readonly memoryBytes: number
  readonly spillDirectory: string
  readonly signal: AbortSignal
  /** For a restore: pages may be left out of CRIU's images, for `verifyPages` to write into the tree that was told of by `built`. */
  readonly direct?: boolean
  /** Bytes of the checkpoint that were unpacked, or of pages that were written. */
  readonly onProgress?: (readBytes: number, what: 'images' | 'pages') => void
}

interface Opened {
  readonly fd: number
  readonly path: string
  /** undefined: a directory, of shards or of images. */
  readonly format: ArchiveFormat | undefined
  /** Of the archive in the file; undefined: it is all of it. */
  readonly range: FileRange | undefined
  /** What its image says it is, of an archive in an OCI image. */
  readonly sha256: string | undefined
  readonly shards: Shards | undefined
}

async function openPath(files: Files, { caller, path }: ReadRequest): Promise<Opened> {
  requireLocal(path)
  let fd: number
  try {
    fd = await files.openAs(caller, undefined, path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (thrown) {
    const errno = errnoOf(thrown)
    if (errno !== 'ENOENT' && errno !== 'ENOTDIR') throw failure(thrown, `open ${path}`)
    throw new CedanaError('NO_SUCH_CHECKPOINT', `checkpoint path does not exist: ${path}`, { cause: thrown, detail: { path } })
  }
  try {
    const stats = fstatSync(fd)
    const whole = { fd, path, format: undefined, range: undefined, sha256: undefined, shards: undefined }
    if (stats.isDirectory()) {
      const entries = await attempt(`read ${path}`, () => readdir(at(fd, '.')))
      if (entries.includes(LAYOUT)) {
        const opened = await openLayout(files, { caller, path }, fd)
        closeSync(fd)
        return opened
      }
      return { ...whole, shards: findShards(path, entries) }
    }
    if (!stats.isFile()) throw new CedanaError('BAD_OPTIONS', `${path} is neither a directory nor a file`, { detail: { path } })
    const format = formatOf(path, firstBytes(fd))
    return (format === 'tar' ? await inLayout(files, fd, path) : undefined) ?? { ...whole, format }
  } catch (thrown) {
    closeSync(fd)
    throw thrown
  }
}

const firstBytes = (fd: number, range?: FileRange): Uint8Array => bytesOf(fd, { offset: range?.offset ?? 0, size: MAGIC_BYTES })

function bytesOf(fd: number, { offset, size }: FileRange): Uint8Array {
  const bytes = Buffer.alloc(size)
  return bytes.subarray(0, readSync(fd, bytes, 0, size, offset))
}

/** The archive in an OCI layout that is a tar itself; undefined: this is none. */
async function inLayout(files: Files, fd: number, path: string): Promise<Opened | undefined> {
  const members = await reopened(fd, (own) => files.archiveList(own)).catch((thrown: unknown) => {
    throw unreadable(thrown, path)
  })
  const byName = new Map(members.map((member) => [member.name, member]))
  if (!byName.has(LAYOUT)) return undefined
  const read = (name: string): Promise<Uint8Array | undefined> => {
    const member = byName.get(name)
    return Promise.resolve(member && bytesOf(fd, { ...member, size: Math.min(member.size, MAX_BLOB_BYTES) }))
  }
  const blob = await findCheckpoint({ path, read })
  const range = byName.get(blob.name)
  if (range?.size !== blob.size) throw corrupt(path, [{ name: blob.name, what: range ? 'is truncated' : 'is missing' }])
  return { fd, path, format: formatOf('.tar', firstBytes(fd, range)), range, sha256: blob.sha256, shards: undefined }
}

/** The same of a directory. Whoever owns it could make a link of anything in it: it is opened as the caller. */
async function openLayout(files: Files, { caller, path }: ReadRequest, directoryFd: number): Promise<Opened> {
  const openIn = (name: string): Promise<number> => files.openAs(caller, directoryFd, name, OPEN_UNTRUSTED)
  const read = async (name: string): Promise<Uint8Array | undefined> => {
    const fd = await openIn(name).catch(() => undefined)
    if (fd === undefined) return undefined
    try {
      return bytesOf(fd, { offset: 0, size: Math.min(fstatSync(fd).size, MAX_BLOB_BYTES) })
    } finally {
      closeSync(fd)
    }
  }
  const blob = await findCheckpoint({ path, read })
  const fd = await attempt(`read ${blob.name} of ${path}`, () => openIn(blob.name))
  try {
    return { fd, path, format: formatOf('.tar', firstBytes(fd)), range: undefined, sha256: blob.sha256, shards: undefined }
  } catch (thrown) {
    closeSync(fd)
    throw thrown
  }
}

/** A descriptor of its own, at the start of the file: reading moves the offset. */
const reopened = async <T>(fd: number, use: (fd: number) => Promise<T>): Promise<T> => {
  const own = openSync(`/proc/self/fd/${fd}`, constants.O_RDONLY)
  try {
    return await use(own)
  } finally {
    closeSync(own)
  }
}

class DirectorySource implements ImageSource {
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

class ArchiveSource implements ImageSource {
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

/** Of an archive, by what its reader says. */
const DAMAGES: Readonly<Record<string, string>> = {
  EBADMSG: 'it is cut off or not what its name says',
  EEXIST: 'it has two files of one name',
}

function unreadable(thrown: unknown, path: string): CedanaError {
  const damage = DAMAGES[errnoOf(thrown) ?? '']
  if (damage === undefined) return failure(thrown, `read ${path}`)
  return new CedanaError('IMAGE_CORRUPT', `${path} is damaged: ${damage}`, {
    cause: thrown,
    detail: { files: [path] },
    hint: 'use another checkpoint',
  })
}

/** The manifest is beside the shards; the images that are ever looked into are in the first of them. */
class ShardSource implements ImageSource {
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

async function look(files: Files, opened: Opened): Promise<{ readonly source: ImageSource; readonly found: FoundManifest | undefined }> {
  if (opened.shards) {
    const found = await shardsManifest(files, opened)
    return { source: new ShardSource(files, opened, opened.shards, found.manifest), found }
  }
  const source = opened.format
    ? new ArchiveSource(files, { ...opened, format: opened.format }, opened.path)
    : new DirectorySource(opened.fd, opened.path)
  return { source, found: await readManifest(files, source) }
}

async function shardsManifest(files: Files, opened: Opened): Promise<FoundManifest> {
  const bytes = (await new DirectorySource(opened.fd, opened.path).read([MANIFEST])).get(MANIFEST)
  if (!bytes) throw manifestMissing(opened.path)
  return decodeFound(files, bytes)
}

interface FoundManifest {
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

async function readManifest(files: Files, source: ImageSource): Promise<FoundManifest | undefined> {
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

/** All bytes of a checkpoint, against its manifest. Nothing is unpacked. Throws IMAGE_CORRUPT naming what differs. */
export async function verify(
  files: Files,
  request: ReadRequest & Pick<OpenRequest, 'signal'>,
): Promise<{ readonly manifest: Manifest | undefined; readonly manifestDigest: string }> {
  const opened = await openPath(files, request)
  try {
    const { source, found } = await look(files, opened)
    if (found) {
      const { manifest } = found
      const unpacked = await unpack(files, opened, { into: undefined, signal: request.signal }, manifest)
      await compareAll(manifest, request.path, source, unpacked?.files ?? ((names) => files.digestFiles(opened.fd, names)))
    }
    return { manifest: found?.manifest, manifestDigest: found?.digest ?? '' }
  } finally {
    closeSync(opened.fd)
  }
}

/** The images of an archive or of shards; undefined: they are files already. Throws IMAGE_CORRUPT unless the shards are what they were. */
async function unpack(files: Files, opened: Opened, options: UnpackOptions, manifest: Manifest | undefined): Promise<Unpacked | undefined> {
  return unpackRaw(files, opened, options, manifest).catch((thrown: unknown) => {
    // No room is no fault of the checkpoint.
    throw errnoOf(thrown) === 'ENOSPC' ? thrown : unreadable(thrown, opened.path)
  })
}

async function unpackRaw(
  files: Files,
  { fd, path, format, range, sha256, shards }: Opened,
  options: UnpackOptions,
  manifest: Manifest | undefined,
): Promise<Unpacked | undefined> {
  if (format) {
    const [unpacked, found] = await Promise.all([
      reopened(fd, (own) => files.unpackArchive({ fd: own, format, range }, options)),
      sha256 === undefined ? undefined : files.sha256(fd, range ?? { offset: 0, size: fstatSync(fd).size }),
    ])
    if (found !== sha256) throw corrupt(path, [{ name: `blobs/sha256/${sha256}`, what: 'has changed content' }])
    return unpacked
  }
  if (!shards || !manifest) return undefined
  const expected = manifest.shards ?? []
  const missing = expected.filter(({ name }) => !shards.names.includes(name))
  if (missing.length > 0)
    throw corrupt(
      path,
      missing.map(({ name }) => ({ name, what: 'is missing' })),
    )
  const fds: number[] = []
  try {
    for (const { name } of expected) fds.push(openSync(at(fd, name), OPEN_UNTRUSTED))
    const unpacked = await files.unpackShards(fds, shards.format, manifest.files, options)
    // Shards that were looked at in part are looked at again.
    if (options.into && options.writer) return unpacked
    const faults = compare(
      expected,
      unpacked.shards.map((found, index) => ({ ...found, name: expected[index]?.name ?? '' })),
    )
    if (faults.length > 0) throw corrupt(path, faults)
    return unpacked
  } finally {
    for (const one of fds) closeSync(one)
  }
}

/** A checkpoint ready to be restored: its images are in a directory, its manifest is read and checked. */
export class CheckpointReader {
  readonly #readings: unknown[] = []
  #closed = false

  private constructor(
    private readonly files: Files,
    /** As the caller named it. */
    readonly path: string,
    /** Directory of CRIU's images; open until `close`. */
    readonly imagesFd: number,
    private readonly found: FoundManifest | undefined,
    /** Undefined: they are where they were. */
    private unpacked: Unpacking | undefined,
  ) {}

  get #direct(): Direct | undefined {
    return this.unpacked?.direct
  }

  /** Written into the tree, not restored by CRIU. */
  get directBytes(): number {
    return this.#direct?.plans.reduce((bytes, { size, restSize }) => bytes + size - restSize, 0) ?? 0
  }

  /** The directory of CRIU's images as a path that other processes of root can open until `close`. */
  get imagesPath(): string {
    return `/proc/${process.pid}/fd/${this.imagesFd}`
  }

  /** undefined: made by CRIU alone, or by something else than cedana. */
  get manifest(): Manifest | undefined {
    return this.found?.manifest
  }

  /** Empty without a manifest. */
  get manifestDigest(): string {
    return this.found?.digest ?? ''
  }

  static async open(files: Files, request: OpenRequest): Promise<CheckpointReader> {
    const opened = await openPath(files, request)
    try {
      const isInPlace = !opened.format && !opened.shards && isOutOfReach(request.caller)
      const before = opened.shards && (await shardsManifest(files, opened))
      const direct = request.direct ? await lookForDirect(files, request, opened, before) : undefined
      if (isInPlace && !direct) return await CheckpointReader.#inPlace(files, opened)
      const reader = await CheckpointReader.#unpack(files, request, opened, { before, direct })
      if (!direct) closeSync(opened.fd)
      return reader
    } catch (thrown) {
      closeSync(opened.fd)
      throw thrown
    }
  }

  static async #inPlace(files: Files, { fd, path }: Opened): Promise<CheckpointReader> {
    return new CheckpointReader(files, path, fd, await readManifest(files, new DirectorySource(fd, path)), undefined)
  }

  static async #unpack(
    files: Files,
    request: OpenRequest,
    opened: Opened,
    { before, direct }: { readonly before: FoundManifest | undefined; readonly direct: Direct | undefined },
  ): Promise<CheckpointReader> {
    const { path, memoryBytes, spillDirectory } = request
    const images = await attempt('make a directory in memory', () => files.makeImages(memoryBytes, spillDirectory))
    try {
      const digests = await fill(files, request, opened, { images, manifest: before?.manifest, writer: direct?.writer })
      for (const [name, content] of direct?.pagemaps ?? []) await writeFile(at(images.fd, name), content)
      const found = before ?? (await readManifest(files, new DirectorySource(images.fd, path)))
      return new CheckpointReader(files, path, images.fd, found, { images, digests, direct })
    } catch (thrown) {
      images.close()
      throw thrown
    }
  }

  get images(): ImageSource {
    return new DirectorySource(this.imagesFd, this.path)
  }

  /** What is worth knowing before trusting it. */
  get problems(): readonly Problem[] {
    if (this.manifest) return []
    return [{ severity: 'warning', id: 'no-manifest', message: `${this.path} was not made by cedana: its images are not verified` }]
  }

  /** The tree is there, below this process, and waits for its pages. */
  built(rootPid: number): void {
    this.#direct?.writer.start(rootPid)
  }

  /** There will be no tree: `verifyPages` rejects with CANCELLED, if it waits for it. */
  notBuilt(): void {
    this.#direct?.writer.stop()
  }

  /** All of it for CRIU, in the same directory. */
  async withoutDirect(request: OpenRequest): Promise<void> {
    if (!this.unpacked?.direct) return
    const { images, direct } = this.unpacked
    images.clear()
    const digests = await fill(this.files, request, direct.opened, { images, manifest: this.manifest, writer: undefined })
    this.unpacked = { images, digests, direct: undefined }
    closeSync(direct.opened.fd)
  }

  /** All that decides what CRIU does: the sizes of all files, and the content of all but the pages. */
  async verifyImages(): Promise<void> {
    await this.#verify(({ name }) => !isPages(name), false)
  }

  /**
   * The memory of the processes: nearly all of the bytes, and without any effect until a restored process runs. CRIU is at work meanwhile. What is
   * written directly is then in the memory of the tree, which has to be `built` for it.
   */
  async verifyPages(): Promise<void> {
    await this.#verify(({ name }) => isPages(name), true)
  }

  async #verify(concerned: (file: FileDigest) => boolean, pages: boolean): Promise<void> {
    const reading = this.#compare(concerned, pages)
    this.#readings.push(reading)
    await reading
  }

  async #compare(concerned: (file: FileDigest) => boolean, pages: boolean): Promise<void> {
    const { manifest, unpacked } = this
    const direct = this.#direct
    const written = direct && (pages ? await direct.write() : direct.plans.map(({ pages: name, size }) => ({ name, size, digest: '' })))
    if (!manifest) return
    const known = unpacked && [...unpacked.digests, ...(written ?? [])]
    await compareAll(manifest, this.path, this.images, known ?? ((names) => this.files.digestFiles(this.imagesFd, names, pages)), concerned)
  }

  /** Gives up what was unpacked. May be called again. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.notBuilt()
    // A descriptor that is closed under a reader may be another file a moment later.
    await Promise.allSettled(this.#readings)
    if (this.#direct) closeSync(this.#direct.opened.fd)
    if (this.unpacked) this.unpacked.images.close()
    else closeSync(this.imagesFd)
  }
}

/** A directory in memory, and what came for free with it. */
interface Unpacking {
  readonly images: ImageDirectory
  readonly digests: readonly FileDigest[]
  readonly direct: Direct | undefined
}

/** Pages that are written into the tree. */
interface Direct extends DirectMemory {
  readonly opened: Opened
  readonly writer: MemoryWriter
  /** Their digests. */
  write(): Promise<readonly FileDigest[]>
}

/** Whose parts need not be unpacked to be passed over: such shards may be read twice. */
const SKIPPABLE: ReadonlySet<ArchiveFormat> = new Set(['tar', 'lz4', 'zstd'])

/** Of what root has made, for root, who alone may write to any memory. */
async function lookForDirect(
  files: Files,
  request: OpenRequest,
  opened: Opened,
  before: FoundManifest | undefined,
): Promise<Direct | undefined> {
  const isSlow = opened.shards !== undefined && !SKIPPABLE.has(opened.shards.format)
  if (opened.format || isSlow || request.caller.uid !== 0 || process.geteuid?.() !== 0) return undefined
  const source =
    opened.shards && before ? new ShardSource(files, opened, opened.shards, before.manifest) : new DirectorySource(opened.fd, opened.path)
  const images = await source.list()
  // Most checkpoints are small, and not to wait for a closer look.
  if (images.reduce((bytes, { name, size }) => bytes + (isPages(name) ? size : 0), 0) < WORTHWHILE_BYTES) return undefined
  const found = before ?? (await readManifest(files, source))
  if (!found || compareSizes(found.manifest.files, images).length > 0) return undefined
  const memory = await directMemory(files, source, { images, isCopied: !opened.shards }).catch((thrown: unknown) => {
    // The verification says it better, and of all files.
    if (CedanaError.from(thrown).code === 'IMAGE_CORRUPT') return undefined
    throw thrown
  })
  if (!memory) return undefined
  const writer = files.memoryWriter(memory.plans)
  const options = { into: undefined, signal: request.signal, writer, onProgress: (bytes: number) => request.onProgress?.(bytes, 'pages') }
  const names = memory.plans.map(({ pages }) => pages)
  const write = (): Promise<readonly FileDigest[]> =>
    attempt(`restore the memory from ${request.path}`, async () => {
      const unpacked = await unpack(files, opened, options, found.manifest)
      return (unpacked ?? (await files.copyImages(opened.fd, names, options))).files
    })
  return { ...memory, opened, writer, write }
}

/** CRIU's images, or all that it is to have of them, in a directory in memory; their digests. */
async function fill(
  files: Files,
  { path, spillDirectory, signal, onProgress }: OpenRequest,
  opened: Opened,
  {
    images,
    manifest,
    writer,
  }: { readonly images: ImageDirectory; readonly manifest: Manifest | undefined; readonly writer: MemoryWriter | undefined },
): Promise<readonly FileDigest[]> {
  const options = { into: images, signal, writer, onProgress: (bytes: number) => onProgress?.(bytes, 'images') }
  const unpacked = await unpack(files, opened, options, manifest)
    .then(async (done) => done ?? files.copyImages(opened.fd, await plainFiles(opened), options))
    .catch((thrown: unknown) => {
      throw failure(thrown, `unpack ${path} into memory and ${spillDirectory}`)
    })
  return unpacked.files
}

const plainFiles = async ({ fd }: Opened): Promise<string[]> =>
  (await readdir(at(fd, '.'), { withFileTypes: true })).filter((entry) => entry.isFile()).map(({ name }) => name)

/** Sizes first: a truncated checkpoint is refused without reading it, and before CRIU can wait for what is not there. */
async function compareAll(
  manifest: Manifest,
  path: string,
  source: ImageSource,
  digests: readonly FileDigest[] | ((names: readonly string[]) => Promise<readonly FileDigest[]>),
  concerned: (file: FileDigest) => boolean = () => true,
): Promise<void> {
  const isKnown = typeof digests !== 'function'
  const sizes = compareSizes(manifest.files, isKnown ? digests : await source.list())
  if (sizes.length > 0) throw corrupt(path, sizes)
  const expected = manifest.files.filter(concerned)
  const found = isKnown ? digests : await attempt(`read ${path}`, () => digests(expected.map(({ name }) => name)))
  const faults = compare(expected, found)
  if (faults.length > 0) throw corrupt(path, faults)
}

/**
 * The owner of the files could change them between their verification and CRIU, which runs as root and believes what they say: such images are
 * copied out of reach first.
 */
const isOutOfReach = (caller: Ids): boolean => caller.uid === 0 || process.geteuid?.() !== 0

export const isPages = (name: string): boolean => /^pages-\d+\.img$/.test(name)

interface Fault {
  readonly name: string
  readonly what: string
}

function compareSizes(expected: readonly FileDigest[], found: readonly ImageFile[]): readonly Fault[] {
  const sizes = new Map(found.map(({ name, size }) => [name, size]))
  return expected.flatMap(({ name, size }) => {
    const actual = sizes.get(name)
    if (actual === undefined) return [{ name, what: 'is missing' }]
    if (actual < size) return [{ name, what: `is truncated: ${actual} of ${size} bytes` }]
    return actual > size ? [{ name, what: `is too long: ${actual} instead of ${size} bytes` }] : []
  })
}

function compare(expected: readonly FileDigest[], found: readonly FileDigest[]): readonly Fault[] {
  const faults = compareSizes(expected, found)
  const faulty = new Set(faults.map(({ name }) => name))
  const digests = new Map(found.map(({ name, digest }) => [name, digest]))
  const changed = expected.filter(({ name, digest }) => !faulty.has(name) && digests.get(name) !== digest)
  return [...faults, ...changed.map(({ name }) => ({ name, what: 'has changed content' }))]
}

function corrupt(path: string, faults: readonly Fault[]): CedanaError {
  const named = faults.slice(0, MAX_NAMED).map(({ name, what }) => `${name} ${what}`)
  const more = faults.length > MAX_NAMED ? ` and ${faults.length - MAX_NAMED} more` : ''
  return new CedanaError('IMAGE_CORRUPT', `checkpoint ${path} is damaged: ${named.join(', ')}${more}`, {
    detail: { path, files: faults.map(({ name }) => name) },
    hint: 'use another checkpoint',
  })
}

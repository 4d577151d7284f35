/**
 * Opens checkpoints: as the caller, without following links, without changing anything of them. For a restore an archive, or shards, are unpacked
 * into memory, but for pages that go into the restored tree by another way (direct-memory); for a look inside (`peek`) and for `verify` they are
 * read where they are.
 */
import { closeSync } from 'node:fs'
import { readdir, writeFile } from 'node:fs/promises'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Problem } from '../../plugins/contract/plan.js'
import { isPages } from './criu-images.js'
import { compareAll, compareSizes } from './damage.js'
import { type DirectMemory, directMemory, WORTHWHILE_BYTES } from './direct-memory.js'
import { attempt, failure } from './failures.js'
import {
  at,
  type FileDigest,
  type Files,
  type Ids,
  type ImageDirectory,
  type ImageFile,
  type ImageSource,
  type MemoryWriter,
} from './files.js'
import type { ArchiveFormat } from './layout.js'
import type { Manifest } from './manifest.js'
import { openPath, type Opened, type ReadRequest } from './opened.js'
import { ArchiveSource, DirectorySource, look, readManifest, ShardSource, shardsManifest, type FoundManifest } from './sources.js'
import { unpack } from './unpack.js'

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
      const digests = await fill(files, request, opened, { images, manifest: before?.manifest, direct })
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
    const digests = await fill(this.files, request, direct.opened, { images, manifest: this.manifest, direct: undefined })
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
  /** All that there are. */
  readonly images: readonly ImageFile[]
  readonly writer: MemoryWriter
  /** Their digests. */
  write(): Promise<readonly FileDigest[]>
}

/** Whose parts need not be unpacked to be passed over, or soon are: such shards may be read twice. */
const QUICK: ReadonlySet<ArchiveFormat> = new Set(['tar', 'lz4', 'zstd'])

/** What may be read twice, but for what is not worth it. */
function sourceOf(files: Files, opened: Opened, before: FoundManifest | undefined): ImageSource | undefined {
  const { fd, path, format, range, shards } = opened
  if (shards && before) return QUICK.has(shards.format) ? new ShardSource(files, opened, shards, before.manifest) : undefined
  if (!format) return new DirectorySource(fd, path)
  const archive = { fd, format, range }
  return files.archiveCanSkip(archive) ? new ArchiveSource(files, archive, path) : undefined
}

/** Of what root has made, for root, who alone may write to any memory. */
async function lookForDirect(
  files: Files,
  request: OpenRequest,
  opened: Opened,
  before: FoundManifest | undefined,
): Promise<Direct | undefined> {
  if (request.caller.uid !== 0 || process.geteuid?.() !== 0) return undefined
  const source = sourceOf(files, opened, before)
  if (!source) return undefined
  const images = await source.list()
  // Most checkpoints are small, and not to wait for a closer look.
  if (images.reduce((bytes, { name, size }) => bytes + (isPages(name) ? size : 0), 0) < WORTHWHILE_BYTES) return undefined
  const found = before ?? (await readManifest(files, source))
  if (!found || compareSizes(found.manifest.files, images).length > 0) return undefined
  const memory = await directMemory(files, source, { images, isCopied: !opened.shards && !opened.format }).catch((thrown: unknown) => {
    // The verification says it better, and of all files.
    if (CedanaError.from(thrown).code === 'IMAGE_CORRUPT') return undefined
    throw thrown
  })
  if (!memory) return undefined
  const writer = files.memoryWriter(memory.plans)
  const onProgress = (bytes: number): void => request.onProgress?.(bytes, 'pages')
  const options = { into: undefined, signal: request.signal, writer, images, onProgress }
  const names = memory.plans.map(({ pages }) => pages)
  const write = (): Promise<readonly FileDigest[]> =>
    attempt(`restore the memory from ${request.path}`, async () => {
      const unpacked = await unpack(files, opened, options, found.manifest)
      return (unpacked ?? (await files.copyImages(opened.fd, names, options))).files
    })
  return { ...memory, opened, images, writer, write }
}

/** CRIU's images, or all that it is to have of them, in a directory in memory; their digests. */
async function fill(
  files: Files,
  { path, spillDirectory, signal, onProgress }: OpenRequest,
  opened: Opened,
  {
    images,
    manifest,
    direct,
  }: { readonly images: ImageDirectory; readonly manifest: Manifest | undefined; readonly direct: Direct | undefined },
): Promise<readonly FileDigest[]> {
  const report = (bytes: number): void => onProgress?.(bytes, 'images')
  const options = { into: images, signal, writer: direct?.writer, images: direct?.images, onProgress: report }
  const unpacked = await unpack(files, opened, options, manifest)
    .then(async (done) => done ?? files.copyImages(opened.fd, await plainFiles(opened), options))
    .catch((thrown: unknown) => {
      throw failure(thrown, `unpack ${path} into memory and ${spillDirectory}`)
    })
  return unpacked.files
}

const plainFiles = async ({ fd }: Opened): Promise<string[]> =>
  (await readdir(at(fd, '.'), { withFileTypes: true })).filter((entry) => entry.isFile()).map(({ name }) => name)

/**
 * The owner of the files could change them between their verification and CRIU, which runs as root and believes what they say: such images are
 * copied out of reach first.
 */
const isOutOfReach = (caller: Ids): boolean => caller.uid === 0 || process.geteuid?.() !== 0

/**
 * Opens checkpoints: as the caller, without following links, without changing anything of them. An archive is unpacked once into a private
 * directory for a restore; for a look inside (`peek`) its members are read where they are.
 */
import { constants, closeSync, fstatSync, openSync } from 'node:fs'
import { copyFile, lstat, mkdir, mkdtemp, open, readdir, rm } from 'node:fs/promises'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Problem } from '../../plugins/contract/plan.js'
import { attempt, errnoOf, failure } from './failures.js'
import { at, OPEN_DIRECTORY, OPEN_UNTRUSTED, type ArchiveProgress, type FileDigest, type Files, type Ids } from './files.js'
import { formatOf, requireLocal, type ArchiveFormat } from './layout.js'
import { isState, STATE } from './state.js'
import { decodeManifest, MANIFEST, MAX_MANIFEST_BYTES, type Manifest } from './manifest.js'

const INVENTORY = 'inventory.img'
/** Named in the message; the rest is counted. */
const MAX_NAMED = 3

export interface ImageFile {
  readonly name: string
  readonly size: number
}
/** The files of a checkpoint, wherever they are. */
export interface ImageSource {
  readonly path: string
  list(): Promise<readonly ImageFile[]>
  /** Contents by name; those that do not exist are left out. */
  read(names: readonly string[]): Promise<ReadonlyMap<string, Uint8Array>>
}

export interface ReadRequest {
  readonly caller: Ids
  readonly path: string
}
export interface UnpackRequest extends ReadRequest {
  /** An archive is unpacked into a new directory (0700) in here. Made when missing. */
  readonly scratch: string
  readonly onProgress?: (progress: ArchiveProgress) => void
}

interface Opened {
  readonly fd: number
  readonly path: string
  /** undefined: a directory. */
  readonly format: ArchiveFormat | undefined
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
    if (stats.isDirectory()) return { fd, path, format: undefined }
    if (!stats.isFile()) throw new CedanaError('BAD_OPTIONS', `${path} is neither a directory nor a file`, { detail: { path } })
    return { fd, path, format: formatOf(path) }
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
      return Promise.all(files.map(async ({ name }) => ({ name, size: (await lstat(at(this.fd, name))).size })))
    })
  }

  async read(names: readonly string[]): Promise<ReadonlyMap<string, Uint8Array>> {
    const contents = new Map<string, Uint8Array>()
    for (const name of names) {
      const content = await attempt(`read ${name} of ${this.path}`, () => readIfThere(at(this.fd, name)))
      if (content) contents.set(name, content)
    }
    return contents
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

class ArchiveSource implements ImageSource {
  constructor(
    private readonly files: Files,
    private readonly fd: number,
    readonly path: string,
    private readonly format: ArchiveFormat,
  ) {}

  async list(): Promise<readonly ImageFile[]> {
    const members = await this.#members(null, 0)
    return members.map(({ name, size }) => ({ name, size }))
  }

  async read(names: readonly string[]): Promise<ReadonlyMap<string, Uint8Array>> {
    const members = await this.#members(names, MAX_MANIFEST_BYTES)
    return new Map(members.map((member) => [member.name, member.content]))
  }

  async #members(names: readonly string[] | null, maxBytes: number) {
    try {
      return await reopened(this.fd, (fd) => this.files.archiveRead(fd, this.format, names, maxBytes))
    } catch (thrown) {
      throw unreadable(thrown, this.path)
    }
  }
}

const unreadable = (thrown: unknown, path: string): CedanaError =>
  errnoOf(thrown) === 'EBADMSG'
    ? new CedanaError('IMAGE_CORRUPT', `${path} is damaged: it is cut off or not what its name says`, {
        cause: thrown,
        detail: { files: [path] },
        hint: 'use another checkpoint',
      })
    : failure(thrown, `read ${path}`)

/** A look inside a checkpoint without unpacking it. */
export interface Peek extends ImageSource {
  readonly manifest: Manifest | undefined
  close(): void
}

export async function peek(files: Files, request: ReadRequest): Promise<Peek> {
  const opened = await openPath(files, request)
  try {
    const source = opened.format
      ? new ArchiveSource(files, opened.fd, opened.path, opened.format)
      : new DirectorySource(opened.fd, opened.path)
    const found = await readManifest(files, source)
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

interface FoundManifest {
  readonly manifest: Manifest
  /** Of the file. */
  readonly digest: string
}

async function readManifest(files: Files, source: ImageSource): Promise<FoundManifest | undefined> {
  const found = await source.read([MANIFEST, STATE])
  const bytes = found.get(MANIFEST)
  if (bytes) return { manifest: decodeManifest(bytes, (part) => files.digestBytes(part)), digest: files.digestBytes(bytes) }
  const state = found.get(STATE)
  // Other programs write a file of that name too, of another shape.
  if (state && isState(state)) {
    throw new CedanaError('IMAGE_CORRUPT', `${source.path} is damaged: ${MANIFEST} is missing`, {
      detail: { files: [MANIFEST] },
      hint: 'use another checkpoint',
    })
  }
  if ((await source.list()).some(({ name }) => name === INVENTORY)) return undefined
  const message = `${source.path} is no checkpoint: it has neither ${MANIFEST} nor ${INVENTORY}`
  throw new CedanaError('IMAGE_CORRUPT', message, { detail: { files: [MANIFEST] } })
}

/** A checkpoint ready to be restored: its images are in a directory, its manifest is read and checked. */
export class CheckpointReader {
  /** What was found while unpacking an archive: digests come for free there. */
  #digests: readonly FileDigest[] | undefined
  readonly #readings: unknown[] = []
  #closed = false

  private constructor(
    private readonly files: Files,
    /** As the caller named it. */
    readonly path: string,
    /** Directory of CRIU's images; open until `close`. */
    readonly imagesFd: number,
    private readonly scratch: string | undefined,
    private readonly found: FoundManifest | undefined,
  ) {}

  /** undefined: made by CRIU alone, or by something else than cedana. */
  get manifest(): Manifest | undefined {
    return this.found?.manifest
  }

  /** Empty without a manifest. */
  get manifestDigest(): string {
    return this.found?.digest ?? ''
  }

  static async open(files: Files, request: UnpackRequest): Promise<CheckpointReader> {
    const opened = await openPath(files, request)
    return opened.format || !isOutOfReach(request.caller)
      ? CheckpointReader.#unpack(files, request, opened)
      : CheckpointReader.#load(files, opened.path, opened.fd)
  }

  static async #load(files: Files, path: string, fd: number, scratch?: string): Promise<CheckpointReader> {
    try {
      return new CheckpointReader(files, path, fd, scratch, await readManifest(files, new DirectorySource(fd, path)))
    } catch (thrown) {
      closeSync(fd)
      throw thrown
    }
  }

  /** The images in a private directory of ours, unpacked or copied, until `close`. */
  static async #unpack(files: Files, request: UnpackRequest, opened: Opened): Promise<CheckpointReader> {
    let scratch: string | undefined
    try {
      scratch = await attempt(`create a directory in ${request.scratch}`, async () => {
        await mkdir(request.scratch, { recursive: true, mode: 0o700 })
        return mkdtemp(`${request.scratch}/restore-`)
      })
      const fd = openSync(scratch, OPEN_DIRECTORY)
      const digests = await fill(files, request, opened, fd).catch((thrown: unknown) => {
        closeSync(fd)
        throw errnoOf(thrown) === 'ENOSPC'
          ? failure(thrown, `unpack ${request.path} into ${request.scratch}`)
          : unreadable(thrown, request.path)
      })
      const reader = await CheckpointReader.#load(files, request.path, fd, scratch)
      reader.#digests = digests
      return reader
    } catch (thrown) {
      if (scratch !== undefined) await rm(scratch, { recursive: true, force: true })
      throw thrown
    } finally {
      closeSync(opened.fd)
    }
  }

  /** Where another process of root finds the images, until `close`. */
  get imagesPath(): string {
    return this.scratch ?? `/proc/${process.pid}/fd/${this.imagesFd}`
  }

  get images(): ImageSource {
    return new DirectorySource(this.imagesFd, this.path)
  }

  /** What is worth knowing before trusting it. */
  get problems(): readonly Problem[] {
    if (this.manifest) return []
    return [{ severity: 'warning', id: 'no-manifest', message: `${this.path} was not made by cedana: its images are not verified` }]
  }

  /** Size and content of every file against the manifest. Throws IMAGE_CORRUPT naming what differs. */
  async verify(): Promise<{ readonly files: number; readonly bytes: number }> {
    await Promise.all([this.verifyImages(), this.verifyPages()])
    return { files: this.manifest?.files.length ?? 0, bytes: this.manifest?.totalBytes ?? 0 }
  }

  /** All that decides what CRIU does: the sizes of all files, and the content of all but the pages. */
  async verifyImages(): Promise<void> {
    await this.#verifySizes()
    await this.#verifyContent(this.#expected.filter(({ name }) => !isPages(name)))
  }

  /** The memory of the processes: nearly all of the bytes, and without any effect until a restored process runs. */
  async verifyPages(): Promise<void> {
    await this.#verifySizes()
    await this.#verifyContent(this.#expected.filter(({ name }) => isPages(name)))
  }

  get #expected(): readonly FileDigest[] {
    return this.manifest?.files ?? []
  }

  /** Before any content: a truncated checkpoint is refused without reading it, and before CRIU can wait for what is not there. */
  async #verifySizes(): Promise<void> {
    const faults = compareSizes(this.#expected, this.#digests ?? (await this.images.list()))
    if (faults.length > 0) throw corrupt(this.path, faults)
  }

  async #verifyContent(expected: readonly FileDigest[]): Promise<void> {
    const names = expected.map(({ name }) => name)
    const reading = this.#digests ?? attempt(`read ${this.path}`, () => this.files.digestFiles(this.imagesFd, names))
    this.#readings.push(reading)
    const faults = compare(expected, await reading)
    if (faults.length > 0) throw corrupt(this.path, faults)
  }

  /** Removes what was unpacked. May be called again. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    // A descriptor that is closed under a reader may be another file a moment later.
    await Promise.allSettled(this.#readings)
    closeSync(this.imagesFd)
    if (this.scratch !== undefined) await rm(this.scratch, { recursive: true, force: true })
  }
}

/** Digests of what was unpacked; a copy has none yet. */
async function fill(
  files: Files,
  { onProgress }: UnpackRequest,
  opened: Opened,
  targetFd: number,
): Promise<readonly FileDigest[] | undefined> {
  if (opened.format) return files.archiveExtract(opened.fd, opened.format, targetFd, onProgress)
  for (const entry of await readdir(at(opened.fd, '.'), { withFileTypes: true })) {
    if (!entry.isFile()) continue
    await using source = await open(at(opened.fd, entry.name), OPEN_UNTRUSTED)
    await copyFile(`/proc/self/fd/${source.fd}`, at(targetFd, entry.name), constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE)
  }
  return undefined
}

/**
 * The owner of the files could change them between their verification and CRIU, which runs as root and believes what they say: such images are
 * copied out of reach first.
 */
const isOutOfReach = (caller: Ids): boolean => caller.uid === 0 || process.geteuid?.() !== 0

const isPages = (name: string): boolean => /^pages-\d+\.img$/.test(name)

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

/**
 * Makes one checkpoint. It grows in a hidden directory beside its final name and gets that name by one rename when every byte of it is on disk:
 * whatever happens in between, readers see nothing or all of it.
 */
import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { lstat, open, readdir, readFile, rmdir, statfs, unlink, writeFile, type FileHandle } from 'node:fs/promises'
import { close, closeSync, fchownSync, lchownSync, openSync } from 'node:fs'
import { promisify } from 'node:util'
import { CedanaError } from '../../plugins/contract/errors.js'
import { attempt, errnoOf, failure } from './failures.js'
import { at, OPEN_DIRECTORY, OPEN_NEW, sync, syncTogether, type FileDigest, type Files, type Ids, type Packer } from './files.js'
import { checkName, partialName, requireLocal, shardFormat, shardNames, suffixOf, type Compression, type Maker } from './layout.js'
import { encodeManifest, MANIFEST, type Manifest, type ManifestInput } from './manifest.js'
import { packThreads } from './pack-memory.js'

export const CRIU_DUMP_LOG = 'criu-dump.log'

export interface WriterRequest {
  readonly caller: Ids
  readonly maker: Maker
  readonly directory: string
  readonly name: string
  readonly compression: Compression
  /** undefined: the codec's default. */
  readonly level: number | undefined
  /** Of the compressor, where memory allows so many. */
  readonly threads: number
  /** 0: a directory of images, or an archive; else so many shards. */
  readonly streams: number
  /** Of what is on its way to the disk. */
  readonly memoryBytes: number
  /** The tree runs on: it is not to wait for the compressor, neither for memory nor for the processors. */
  readonly background: boolean
  /** Upper bound of what the images take, before compression. */
  readonly estimateBytes: number
}

type Sealed = Omit<SealedCheckpoint, 'path'>

export interface SealedCheckpoint {
  readonly path: string
  /** Bytes on disk: of all files, or of the archive. */
  readonly size: number
  readonly manifest: Manifest
  /** Of manifest.json: tells this checkpoint from a forged one. */
  readonly manifestDigest: string
}

const closeFd = promisify(close)
/** __O_TMPFILE, which Node does not name. */
const TMPFILE = 0o20000000

/** What may be left of the images; a checkpoint that turns out larger fails when the disk is full. */
const SPACE_FACTOR: Readonly<Record<Compression, number>> = { none: 1, tar: 1, gzip: 0.4, lz4: 0.6, zlib: 0.4, zstd: 0.4 }
/** Small images, manifest, log. */
const SPACE_MARGIN = 1 << 20

const mebibytes = (bytes: number): string => `${(bytes / (1 << 20)).toFixed(1)} MiB`

export class CheckpointWriter {
  /** Entries of the parent directory that are ours and not yet final, by what they are. */
  readonly #made = new Map<string, 'directory' | 'file'>()
  #packer: Packer | undefined
  #sealed = false
  #closed = false

  private constructor(
    private readonly files: Files,
    private readonly request: WriterRequest,
    private readonly parentFd: number,
    private readonly stagingName: string,
    /** For CRIU's images; open until the end. */
    readonly stagingFd: number,
  ) {
    this.#made.set(stagingName, 'directory')
  }

  /** Where the checkpoint will be. */
  get path(): string {
    return `${this.request.directory}/${this.#finalName}`
  }

  get #finalName(): string {
    return finalName(this.request)
  }

  /** Where images go while they come; undefined: into the staging directory. */
  get packer(): Packer | undefined {
    return this.#packer
  }

  /** Checks all that can be known beforehand, then makes the staging directory. Leaves nothing behind when it throws. */
  static async create(files: Files, request: WriterRequest): Promise<CheckpointWriter> {
    const { caller, directory, name } = request
    requireLocal(directory)
    checkName(name)
    if (isPacked(request)) threadsOf(request)
    const parentFd = await openParent(files, request)
    try {
      await checkFree(parentFd, finalName(request), directory)
      await checkSpace(parentFd, request)
      const staging = partialName(name, request.maker, randomBytes(6).toString('hex'))
      const stagingFd = await attempt(`create a checkpoint in ${directory}`, () => files.mkdirAs(caller, parentFd, staging, 0o700))
      const writer = new CheckpointWriter(files, request, parentFd, staging, stagingFd)
      try {
        await writer.#takeStaging()
        await writer.#openPacker()
      } catch (thrown) {
        await writer.abort().catch(() => undefined)
        throw thrown
      }
      return writer
    } catch (thrown) {
      closeQuietly(parentFd)
      throw thrown
    }
  }

  /**
   * CRIU creates files as root by name. In a directory that belongs to the caller, a link planted in time would make it write anywhere: the
   * directory is ours while it grows and is given back when sealed.
   */
  async #takeStaging(): Promise<void> {
    if (!this.#mustGive) return
    await attempt(`create a checkpoint in ${this.request.directory}`, () => fchownSync(this.stagingFd, 0, 0))
    const planted = await readdir(at(this.stagingFd, '.'))
    if (planted.length > 0)
      throw new CedanaError('PERMISSION_DENIED', `somebody wrote into the new checkpoint ${this.path}: ${planted.join(', ')}`)
  }

  async #openPacker(): Promise<void> {
    const { caller, compression, level, streams, memoryBytes, background } = this.request
    if (!isPacked(this.request)) return
    const fds: number[] = []
    try {
      await attempt(`write ${this.path}`, async () => {
        if (streams > 0) {
          for (const name of this.#shards) fds.push(openSync(at(this.stagingFd, name), OPEN_NEW, 0o600))
        } else {
          fds.push(await this.files.openAs(caller, this.parentFd, this.#archive, OPEN_NEW, 0o600))
          this.#made.set(this.#archive, 'file')
        }
        const spillFd = background ? openNameless(this.parentFd) : undefined
        const request = {
          outputFds: [...fds],
          sharded: streams > 0,
          format: shardFormat(compression),
          level,
          threads: threadsOf(this.request),
          memoryBytes,
          background,
        }
        if (spillFd !== undefined) fds.push(spillFd)
        this.#packer = this.files.pack({ ...request, spillFd })
      })
    } finally {
      for (const fd of fds) closeSync(fd)
    }
  }

  get #shards(): string[] {
    return shardNames(this.request.compression, this.request.streams)
  }

  /** The archive as long as it is not complete. */
  get #archive(): string {
    return this.stagingName + suffixOf(this.request.compression)
  }

  /** Only root can make files that are not the caller's. */
  get #mustGive(): boolean {
    return process.geteuid?.() === 0 && this.request.caller.uid !== 0
  }

  /** Puts a small file beside CRIU's images. */
  async add(name: string, content: Uint8Array): Promise<void> {
    await attempt(`write ${name} of ${this.path}`, async () => {
      await using file = await this.#create(name)
      await file.writeFile(content)
    })
  }

  /** Changes an image that CRIU has written, when there is one of that name. */
  async rewrite(name: string, change: (content: Uint8Array) => Uint8Array): Promise<void> {
    await attempt(`write ${name} of ${this.path}`, async () => {
      const path = at(this.stagingFd, name)
      const content = await readFile(path).catch((thrown: unknown) => {
        if (errnoOf(thrown) !== 'ENOENT') throw thrown
      })
      if (content) await writeFile(path, change(content))
    })
  }

  async #create(name: string): Promise<FileHandle> {
    return open(at(this.stagingFd, name), OPEN_NEW, 0o600)
  }

  /**
   * Makes the checkpoint visible. `known`: images that are digested and durable, or packed, already (page data). After a failure the only thing left
   * to do is `abort`.
   */
  async seal(input: ManifestInput, known: readonly FileDigest[] = []): Promise<SealedCheckpoint> {
    const knownNames = new Set(known.map((file) => file.name))
    const names = (await this.#imageNames()).filter((name) => !knownNames.has(name))
    const packer = this.#packer
    const sealed = packer ? await this.#sealPacked(packer, input, known, names) : await this.#sealPlain(input, known, names)
    this.#sealed = true
    await this.#close()
    return { path: this.path, ...sealed }
  }

  /** `unsynced`: files that are not on disk yet. Nobody sees the directory before it is renamed, so their order does not matter until then. */
  async #sealPlain(input: ManifestInput, known: readonly FileDigest[], unsynced: readonly string[]): Promise<Sealed> {
    this.#give([...known.map(({ name }) => name), ...unsynced])
    const digested = await attempt(`write ${this.path}`, () => this.files.digestFiles(this.stagingFd, unsynced))
    const sealed = await this.#addManifest(input, [...known, ...digested])
    await this.#publishDirectory([...unsynced, MANIFEST])
    return { ...sealed, size: sealed.manifest.totalBytes + sealed.size }
  }

  async #sealPacked(packer: Packer, input: ManifestInput, known: readonly FileDigest[], names: readonly string[]): Promise<Sealed> {
    const isArchive = this.request.streams === 0
    const finish = (): Promise<readonly Omit<FileDigest, 'name'>[]> => attempt(`write ${this.path}`, () => packer.finish())
    const add = (added: readonly string[]): Promise<readonly FileDigest[]> =>
      attempt(`write ${this.path}`, () => packer.add(this.stagingFd, added))
    const files = [...known, ...(await add(names))]
    if (isArchive) {
      const sealed = await this.#addManifest(input, files)
      await add([MANIFEST])
      const [archive] = await finish()
      await this.#publish(this.#archive)
      await this.#remove(this.stagingName)
      return { ...sealed, size: archive?.size ?? 0 }
    }
    const outputs = await finish()
    const shards = outputs.map(({ size, digest }, index) => ({ name: this.#shards[index] ?? '', size, digest }))
    const sealed = await this.#addManifest(input, files, shards)
    await attempt(`write ${this.path}`, () => Promise.all(names.map((name) => unlink(at(this.stagingFd, name)))))
    this.#give(this.#shards)
    await this.#publishDirectory([MANIFEST])
    return { ...sealed, size: sealed.size + shards.reduce((sum, { size }) => sum + size, 0) }
  }

  /** Its size is what the checkpoint is larger by. */
  async #addManifest(input: ManifestInput, files: readonly FileDigest[], shards?: readonly FileDigest[]): Promise<Sealed> {
    const sorted = [...files].sort((a, b) => (a.name < b.name ? -1 : 1))
    const totalBytes = sorted.reduce((sum, file) => sum + file.size, 0)
    const manifest = { ...input, compression: this.request.compression, files: sorted, ...(shards && { shards }), totalBytes } as Manifest
    const bytes = encodeManifest(manifest, (part) => this.files.digestBytes(part))
    await this.add(MANIFEST, bytes)
    return { manifest, manifestDigest: this.files.digestBytes(bytes), size: bytes.length }
  }

  async #imageNames(): Promise<string[]> {
    const entries = await attempt(`read ${this.path}`, () => readdir(at(this.stagingFd, '.'), { withFileTypes: true }))
    const odd = entries.find((entry) => !entry.isFile())
    if (odd) throw new CedanaError('BUG', `unexpected ${odd.name} among the images of ${this.path}`)
    const shards = new Set(this.#shards)
    return entries
      .map((entry) => entry.name)
      .filter((name) => !shards.has(name))
      .sort()
  }

  /** To the caller: what root made. */
  #give(names: readonly string[]): void {
    if (!this.#mustGive) return
    const { uid, gid } = this.request.caller
    for (const name of names) lchownSync(at(this.stagingFd, name), uid, gid)
  }

  async #publishDirectory(unsynced: readonly string[]): Promise<void> {
    await attempt(`write ${this.path}`, async () => {
      this.#give([MANIFEST])
      await syncTogether(this.stagingFd, unsynced)
      if (this.#mustGive) fchownSync(this.stagingFd, this.request.caller.uid, this.request.caller.gid)
    })
    await this.#publish(this.stagingName)
  }

  async #publish(partial: string): Promise<void> {
    const kind = this.#made.get(partial) ?? 'file'
    try {
      await this.files.renameNoReplace(this.parentFd, partial, this.#finalName)
    } catch (thrown) {
      if (errnoOf(thrown) === 'EEXIST') throw exists(this.path, thrown)
      throw failure(thrown, `write ${this.path}`)
    }
    // Until the name is on disk the checkpoint is not done: when that fails, abort has to take it away again under its new name.
    this.#made.delete(partial)
    this.#made.set(this.#finalName, kind)
    await attempt(`write ${this.path}`, () => sync(this.parentFd))
    await this.#requireVisible()
    this.#made.delete(this.#finalName)
  }

  /** What we hold open may have been unmounted or moved meanwhile: then the checkpoint is somewhere, but not where anybody will look. */
  async #requireVisible(): Promise<void> {
    const ours = await attempt(`look at ${this.path}`, () => lstat(at(this.parentFd, this.#finalName)))
    const seen = await lstat(this.path).catch(() => undefined)
    if (seen?.ino === ours.ino && seen.dev === ours.dev) return
    throw new CedanaError('STORAGE_FAILED', `${this.request.directory} was unmounted or moved during the dump`)
  }

  /**
   * Removes everything made so far. May be called again, and after `seal`, when it does nothing. Throws when something could not be removed, after
   * having tried all.
   */
  async abort(): Promise<void> {
    if (this.#closed || this.#sealed) return
    await this.#packer?.abort()
    const failures: CedanaError[] = []
    const guard = async <T>(attempted: string, work: () => Promise<T>): Promise<T | undefined> =>
      attempt(attempted, work).catch((thrown: unknown) => {
        failures.push(CedanaError.from(thrown))
        return undefined
      })
    for (const name of [...this.#made.keys()]) await guard(`remove ${this.request.directory}/${name}`, () => this.#remove(name))
    await guard(`close ${this.path}`, () => this.#close())
    const [first, ...others] = failures
    if (first) {
      first.suppressed.push(...others)
      throw first
    }
  }

  async #remove(name: string): Promise<void> {
    await removeEntry(this.parentFd, name, this.#made.get(name) ?? 'file')
    this.#made.delete(name)
  }

  async #close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await Promise.all([closeFd(this.stagingFd), closeFd(this.parentFd)])
  }
}

/**
 * Removes a file, or a directory of files, of an open directory. Never descends further: in a directory that somebody else can write, a removal
 * that follows sub-directories can be led elsewhere.
 */
export async function removeEntry(parentFd: number, name: string, kind: 'directory' | 'file'): Promise<void> {
  try {
    if (kind === 'file') {
      await unlink(at(parentFd, name))
      return
    }
    const directory = await open(at(parentFd, name), OPEN_DIRECTORY | constants.O_NOFOLLOW)
    try {
      for (const entry of await readdir(at(directory.fd, '.'))) await unlink(at(directory.fd, entry))
    } finally {
      await directory.close()
    }
    await rmdir(at(parentFd, name))
  } catch (thrown) {
    if (errnoOf(thrown) !== 'ENOENT') throw thrown
  }
}

const finalName = ({ name, streams, compression }: WriterRequest): string => (streams > 0 ? name : name + suffixOf(compression))

const isPacked = ({ streams, compression }: WriterRequest): boolean => streams > 0 || compression !== 'none'

const threadsOf = ({ memoryBytes, streams, threads, background }: WriterRequest): number =>
  packThreads({ memoryBytes, outputs: Math.max(streams, 1), threads, spills: background })

/** A file without a name in that directory; undefined where the file system has none. */
function openNameless(directoryFd: number): number | undefined {
  try {
    return openSync(at(directoryFd, '.'), constants.O_RDWR | constants.O_DIRECTORY | TMPFILE, 0o600)
  } catch {
    return undefined
  }
}

const exists = (path: string, cause?: unknown): CedanaError =>
  new CedanaError('CHECKPOINT_EXISTS', `${path} already exists`, { cause, detail: { path }, hint: 'choose another --name' })

async function openParent(files: Files, { caller, directory }: WriterRequest): Promise<number> {
  try {
    return await files.openAs(caller, undefined, directory, OPEN_DIRECTORY)
  } catch (thrown) {
    const errno = errnoOf(thrown)
    if (errno === 'ENOENT' || errno === 'ENOTDIR') {
      throw new CedanaError('BAD_OPTIONS', `dump dir does not exist: ${directory}`, {
        cause: thrown,
        hint: 'create it or choose another with --dir',
      })
    }
    throw failure(thrown, `open ${directory}`)
  }
}

async function checkFree(parentFd: number, name: string, directory: string): Promise<void> {
  const found = await lstat(at(parentFd, name)).catch((thrown: unknown) => {
    if (errnoOf(thrown) === 'ENOENT') return undefined
    throw failure(thrown, `look at ${directory}/${name}`)
  })
  if (found) throw exists(`${directory}/${name}`)
}

async function checkSpace(parentFd: number, { directory, estimateBytes, compression }: WriterRequest): Promise<void> {
  const { bavail, bsize } = await attempt(`look at ${directory}`, () => statfs(at(parentFd, '.')))
  const free = bavail * bsize
  const needed = estimateBytes * SPACE_FACTOR[compression] + SPACE_MARGIN
  if (free >= needed) return
  const message = `not enough space in ${directory}: the checkpoint may need ${mebibytes(needed)}, ${mebibytes(free)} are free`
  throw new CedanaError('NO_SPACE', message, {
    detail: { neededBytes: Math.ceil(needed), freeBytes: free },
    hint: 'free some space or choose another directory with --dir',
  })
}

function closeQuietly(fd: number): void {
  try {
    closeSync(fd)
  } catch {
    // Closed by whoever failed.
  }
}

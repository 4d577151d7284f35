/**
 * Makes one checkpoint. It grows in a hidden directory beside its final name and gets that name by one rename when every byte of it is on disk:
 * whatever happens in between, readers see nothing or all of it.
 */
import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { lstat, open, readdir, rmdir, statfs, unlink, type FileHandle } from 'node:fs/promises'
import { close, closeSync, fchownSync, lchownSync } from 'node:fs'
import { promisify } from 'node:util'
import { CedanaError } from '../../plugins/contract/errors.js'
import { attempt, errnoOf, failure } from './failures.js'
import { at, OPEN_DIRECTORY, OPEN_NEW, sync, syncTogether, type ArchiveProgress, type FileDigest, type Files, type Ids } from './files.js'
import { checkName, partialName, requireLocal, suffixOf, type Compression, type Maker } from './layout.js'
import { encodeManifest, MANIFEST, type Manifest, type ManifestInput } from './manifest.js'

export const CRIU_DUMP_LOG = 'criu-dump.log'

export interface WriterRequest {
  readonly caller: Ids
  readonly maker: Maker
  readonly directory: string
  readonly name: string
  readonly compression: Compression
  /** undefined: the codec's default. */
  readonly level: number | undefined
  /** Of the compressor. */
  readonly threads: number
  /** Upper bound of what the images take, before compression. */
  readonly estimateBytes: number
}

export interface SealedCheckpoint {
  readonly path: string
  /** Bytes on disk: of all files, or of the archive. */
  readonly size: number
  readonly manifest: Manifest
  /** Of manifest.json: tells this checkpoint from a forged one. */
  readonly manifestDigest: string
}

const closeFd = promisify(close)

/** While compressing, the images and the archive are there together. */
const SPACE_FACTOR: Readonly<Record<Compression, number>> = { none: 1, tar: 2, gzip: 1.4, lz4: 1.6, zlib: 1.4, zstd: 1.4 }
/** Small images, manifest, log. */
const SPACE_MARGIN = 1 << 20

const mebibytes = (bytes: number): string => `${(bytes / (1 << 20)).toFixed(1)} MiB`

export class CheckpointWriter {
  /** Entries of the parent directory that are ours and not yet final, by what they are. */
  readonly #made = new Map<string, 'directory' | 'file'>()
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
    return this.request.name + suffixOf(this.request.compression)
  }

  /** Checks all that can be known beforehand, then makes the staging directory. Leaves nothing behind when it throws. */
  static async create(files: Files, request: WriterRequest): Promise<CheckpointWriter> {
    const { caller, directory, name, compression } = request
    requireLocal(directory)
    checkName(name)
    const parentFd = await openParent(files, request)
    try {
      const final = name + suffixOf(compression)
      await checkFree(parentFd, final, directory)
      await checkSpace(parentFd, request)
      const staging = partialName(name, request.maker, randomBytes(6).toString('hex'))
      const stagingFd = await attempt(`create a checkpoint in ${directory}`, () => files.mkdirAs(caller, parentFd, staging, 0o700))
      const writer = new CheckpointWriter(files, request, parentFd, staging, stagingFd)
      try {
        await writer.#takeStaging()
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

  async #create(name: string): Promise<FileHandle> {
    return open(at(this.stagingFd, name), OPEN_NEW, 0o600)
  }

  /**
   * Makes the checkpoint visible. `known`: files that are digested and synced already (page data). After a failure the only thing left to do is
   * `abort`.
   */
  async seal(
    input: ManifestInput,
    known: readonly FileDigest[] = [],
    onProgress?: (progress: ArchiveProgress) => void,
  ): Promise<SealedCheckpoint> {
    const { compression } = this.request
    const names = await this.#imageNames()
    this.#give(names)
    const knownNames = new Set(known.map((file) => file.name))
    const others = names.filter((name) => !knownNames.has(name))
    const digested = await attempt(`write ${this.path}`, () => this.files.digestFiles(this.stagingFd, others))
    const files = [...known, ...digested].sort((a, b) => (a.name < b.name ? -1 : 1))
    const totalBytes = files.reduce((sum, file) => sum + file.size, 0)
    const manifest: Manifest = { ...input, compression, files: [...files], totalBytes } as Manifest
    const bytes = encodeManifest(manifest, (part) => this.files.digestBytes(part))
    const manifestDigest = this.files.digestBytes(bytes)
    const isDirectory = compression === 'none'
    if (isDirectory) await this.#sealDirectory(others, bytes)
    const size = isDirectory ? totalBytes + bytes.length : await this.#sealArchive(names, bytes, onProgress)
    this.#sealed = true
    await this.#close()
    return { path: this.path, size, manifest, manifestDigest }
  }

  async #imageNames(): Promise<string[]> {
    const entries = await attempt(`read ${this.path}`, () => readdir(at(this.stagingFd, '.'), { withFileTypes: true }))
    const odd = entries.find((entry) => !entry.isFile())
    if (odd) throw new CedanaError('BUG', `unexpected ${odd.name} among the images of ${this.path}`)
    return entries.map((entry) => entry.name).sort()
  }

  /** To the caller: what root made. */
  #give(names: readonly string[]): void {
    if (!this.#mustGive) return
    const { uid, gid } = this.request.caller
    for (const name of names) lchownSync(at(this.stagingFd, name), uid, gid)
  }

  /** `unsynced`: files that are not on disk yet. Nobody sees the directory before it is renamed, so their order does not matter until then. */
  async #sealDirectory(unsynced: readonly string[], manifest: Uint8Array): Promise<void> {
    await this.add(MANIFEST, manifest)
    await attempt(`write ${this.path}`, async () => {
      this.#give([MANIFEST])
      await syncTogether(this.stagingFd, [...unsynced, MANIFEST])
      if (this.#mustGive) fchownSync(this.stagingFd, this.request.caller.uid, this.request.caller.gid)
    })
    await this.#publish(this.stagingName)
  }

  async #sealArchive(names: readonly string[], manifest: Uint8Array, onProgress?: (progress: ArchiveProgress) => void): Promise<number> {
    const { caller, compression, level, threads } = this.request
    if (compression === 'none') throw new CedanaError('BUG', 'an archive needs a format')
    await this.add(MANIFEST, manifest)
    const partial = this.stagingName + suffixOf(compression)
    const size = await attempt(`write ${this.path}`, async () => {
      const outputFd = await this.files.openAs(caller, this.parentFd, partial, OPEN_NEW, 0o600)
      this.#made.set(partial, 'file')
      try {
        const progress = onProgress && { onProgress }
        const request = {
          directoryFd: this.stagingFd,
          names: [...names, MANIFEST],
          outputFd,
          format: compression,
          level,
          threads,
          ...progress,
        }
        return (await this.files.archiveCreate(request)).size
      } finally {
        await closeFd(outputFd)
      }
    })
    await this.#publish(partial)
    await this.#remove(this.stagingName)
    return size
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
    this.#made.delete(this.#finalName)
  }

  /**
   * Removes everything made so far. May be called again, and after `seal`, when it does nothing. Throws when something could not be removed, after
   * having tried all.
   */
  async abort(): Promise<void> {
    if (this.#closed || this.#sealed) return
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

/**
 * A checkpoint of a container as the archive that podman, CRI-O, containerd and checkpointctl exchange: one tar with what is known of the container
 * at its top and CRIU's images in checkpoint/. Ours has its manifest besides, so that cedana verifies and restores it like any other.
 */
import { randomBytes } from 'node:crypto'
import { closeSync, lstatSync } from 'node:fs'
import { unlink } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { CedanaError } from '../../plugins/contract/errors.js'
import { CONFIG_DUMP, SPEC_DUMP } from '../../plugins/contract/plan.js'
import { DELETED_FILES, ROOTFS_DIFF } from './container.js'
import { attempt, errnoOf, failure } from './failures.js'
import { at, OPEN_DIRECTORY, OPEN_NEW, sync, type Files, type Ids, type Packer } from './files.js'
import { checkName, formatOf, partialName, requireLocal, type ArchiveFormat, type Maker } from './layout.js'
import { MANIFEST } from './manifest.js'
import { isPages, type ImageSource } from './reader.js'

/** Where the others look for CRIU's images; the reader (addon/stream/tar.cc) takes them from there. */
const IMAGE_FOLDER = 'checkpoint/'

/** What they look for at the top, as far as a checkpoint has it. */
const AT_THE_TOP: ReadonlySet<string> = new Set([
  MANIFEST,
  CONFIG_DUMP,
  SPEC_DUMP,
  ...['network.status', ROOTFS_DIFF, DELETED_FILES, 'devshm-checkpoint.tar', 'stats-dump', 'dump.log', 'ctr.log', 'container.log'],
  ...['bind.mounts', 'status', 'status.dump'],
])
/** Compressed otherwise, nobody else can read it. */
const FORMATS: readonly ArchiveFormat[] = ['tar', 'gzip', 'zstd']

export interface ExportRequest {
  readonly caller: Ids
  readonly maker: Maker
  /** The new file. Its name says how it is compressed. */
  readonly path: string
  readonly threads: number
  /** Of what is on its way to the disk. */
  readonly memoryBytes: number
}

function exportFormat(path: string): ArchiveFormat {
  const format = formatOf(path)
  if (FORMATS.includes(format)) return format
  throw new CedanaError('BAD_OPTIONS', `no other program reads checkpoint archives in ${format}`, {
    hint: 'name the file with .tar, .tar.gz or .tar.zst at its end',
  })
}

/** Small files first, so that a look inside need not read the memory of the processes. */
async function membersOf(
  images: ImageSource,
): Promise<{ readonly top: readonly string[]; readonly below: readonly string[]; readonly bulk: readonly string[] }> {
  const names = (await images.list()).map(({ name }) => name).sort()
  const missing = [CONFIG_DUMP, SPEC_DUMP].find((name) => !names.includes(name))
  if (missing !== undefined) {
    throw new CedanaError('TARGET_UNFIT', `${images.path} is no checkpoint of a container: it has no ${missing}`, {
      hint: 'only checkpoints of containers can be exported; a checkpoint of a process is an archive with --compression tar',
    })
  }
  const isTop = (name: string): boolean => AT_THE_TOP.has(name)
  return {
    top: names.filter((name) => isTop(name) && !name.endsWith('.tar')),
    below: [...names.filter((name) => !isTop(name) && !isPages(name)), ...names.filter(isPages)],
    bulk: names.filter((name) => isTop(name) && name.endsWith('.tar')),
  }
}

/** The new archive, under a hidden name until all of it is on disk. */
export class ArchiveExport {
  #made: string | undefined
  #closed = false

  private constructor(
    private readonly files: Files,
    private readonly request: ExportRequest,
    private readonly parentFd: number,
    private readonly packer: Packer,
    made: string,
  ) {
    this.#made = made
  }

  /** Leaves nothing behind when it throws. */
  static async create(files: Files, request: ExportRequest): Promise<ArchiveExport> {
    const { caller, maker, path, threads, memoryBytes } = request
    requireLocal(path)
    const format = exportFormat(path)
    checkName(basename(path))
    const parentFd = await attempt(`open ${dirname(path)}`, () => files.openAs(caller, undefined, dirname(path), OPEN_DIRECTORY))
    try {
      if (lstatSync(at(parentFd, basename(path)), { throwIfNoEntry: false })) throw exists(path)
      const partial = `${partialName(basename(path), maker, randomBytes(6).toString('hex'))}.tar`
      const fd = await attempt(`write ${path}`, () => files.openAs(caller, parentFd, partial, OPEN_NEW, 0o600))
      try {
        const options = { format, level: undefined, threads, memoryBytes, sharded: false, background: false, spillFd: undefined }
        return new ArchiveExport(files, request, parentFd, files.pack({ ...options, outputFds: [fd] }), partial)
      } finally {
        closeSync(fd)
      }
    } catch (thrown) {
      closeSync(parentFd)
      throw thrown
    }
  }

  /** `directoryFd`: where the images of the checkpoint are. Answers the size of the archive. */
  async write(images: ImageSource, directoryFd: number): Promise<number> {
    const { path } = this.request
    const { top, below, bulk } = await membersOf(images)
    return attempt(`write ${path}`, async () => {
      await this.packer.add(directoryFd, top)
      await this.packer.add(directoryFd, below, IMAGE_FOLDER)
      await this.packer.add(directoryFd, bulk)
      const [archive] = await this.packer.finish()
      await this.#publish()
      return archive?.size ?? 0
    })
  }

  async #publish(): Promise<void> {
    const { path } = this.request
    try {
      await this.files.renameNoReplace(this.parentFd, this.#made ?? '', basename(path))
    } catch (thrown) {
      throw errnoOf(thrown) === 'EEXIST' ? exists(path, thrown) : failure(thrown, `write ${path}`)
    }
    this.#made = basename(path)
    await sync(this.parentFd)
    this.#made = undefined
  }

  /** Whatever is under way ends soon, with CANCELLED. */
  breakOff(): void {
    void this.packer.abort()
  }

  /** Removes what is not finished. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.packer.abort()
    if (this.#made !== undefined) await unlink(at(this.parentFd, this.#made))
    closeSync(this.parentFd)
  }
}

const exists = (path: string, cause?: unknown): CedanaError =>
  new CedanaError('CHECKPOINT_EXISTS', `${path} already exists`, {
    cause,
    detail: { path },
    hint: 'choose another name, or remove it first',
  })

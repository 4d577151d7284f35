/**
 * A checkpoint of a container as the archive that podman, CRI-O, containerd and checkpointctl exchange: one tar with what is known of the container
 * at its top and CRIU's images in checkpoint/. Ours has its manifest besides, so that cedana verifies and restores it like any other. An OCI archive
 * has that tar as the one layer of an image.
 */
import { randomBytes } from 'node:crypto'
import { closeSync, constants, lstatSync } from 'node:fs'
import { open, unlink } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { CedanaError } from '../../plugins/contract/errors.js'
import { CONFIG_DUMP, SPEC_DUMP } from '../../plugins/contract/plan.js'
import { CONTAINER_FILES, DELETED_FILES, readContainer, ROOTFS_DIFF } from './container.js'
import { attempt, errnoOf, failure } from './failures.js'
import { at, HEAD_BYTES, OPEN_DIRECTORY, OPEN_NEW, sync, type Files, type Ids, type Packer, type ImageSource } from './files.js'
import { checkName, formatOf, partialName, requireLocal, type ArchiveFormat, type Maker } from './layout.js'
import { MANIFEST, type Manifest } from './manifest.js'
import { annotationsOf, around, nameOf } from './oci-export.js'
import { isPages } from './criu-images.js'

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
export const EXPORT_FORMATS = ['tar', 'oci-archive'] as const
export type ExportFormat = (typeof EXPORT_FORMATS)[number]

/** Compressed otherwise, nobody else can read it; of an OCI archive others compress the layer when they send it anywhere. */
const COMPRESSIONS: Readonly<Record<ExportFormat, readonly ArchiveFormat[]>> = { tar: ['tar', 'gzip', 'zstd'], 'oci-archive': ['tar'] }

export interface ExportRequest {
  readonly caller: Ids
  readonly maker: Maker
  /** The new file. Its name says how it is compressed. */
  readonly path: string
  readonly form: ExportFormat
  /** Name of the image in an OCI archive; empty: by the name of the container. */
  readonly image: string
  readonly threads: number
  /** Of what is on its way to the disk. */
  readonly memoryBytes: number
}

function exportFormat({ path, form, image }: ExportRequest): ArchiveFormat {
  const format = formatOf(path)
  if (image !== '' && form !== 'oci-archive')
    throw new CedanaError('BAD_OPTIONS', 'only an OCI archive has an image', { hint: '--image goes with --format oci-archive' })
  if (image !== '' && !IMAGE_NAME.test(image)) throw new CedanaError('BAD_OPTIONS', `invalid name of an image: ${image}`)
  if (COMPRESSIONS[form].includes(format)) return format
  if (form === 'oci-archive')
    throw new CedanaError('BAD_OPTIONS', 'an OCI archive is a plain tar', { hint: 'name the file with .tar at its end' })
  throw new CedanaError('BAD_OPTIONS', `no other program reads checkpoint archives in ${format}`, {
    hint: 'name the file with .tar, .tar.gz or .tar.zst at its end',
  })
}
/** `[HOST[:PORT]/]PATH[:TAG]`, as the distribution specification has it. */
const IMAGE_NAME = /^([A-Za-z0-9.-]+(:\d+)?\/)?[a-z0-9]+([._-]+[a-z0-9]+)*(\/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[\w][\w.-]{0,127})?$/

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
    const { caller, maker, path, form, threads, memoryBytes } = request
    requireLocal(path)
    const format = exportFormat(request)
    checkName(basename(path))
    const parentFd = await attempt(`open ${dirname(path)}`, () => files.openAs(caller, undefined, dirname(path), OPEN_DIRECTORY))
    try {
      if (lstatSync(at(parentFd, basename(path)), { throwIfNoEntry: false })) throw exists(path)
      const partial = `${partialName(basename(path), maker, randomBytes(6).toString('hex'))}.tar`
      const fd = await attempt(`write ${path}`, () => files.openAs(caller, parentFd, partial, OPEN_NEW, 0o600))
      try {
        const options = { format, level: undefined, threads, memoryBytes, sharded: false, background: false, spillFd: undefined }
        const packer = files.pack({ ...options, outputFds: [fd], offset: form === 'oci-archive' ? HEAD_BYTES : 0 })
        return new ArchiveExport(files, request, parentFd, packer, partial)
      } finally {
        closeSync(fd)
      }
    } catch (thrown) {
      closeSync(parentFd)
      throw thrown
    }
  }

  /** `directoryFd`: where the images of the checkpoint are. Answers the size of the archive. */
  async write(images: ImageSource, directoryFd: number, manifest: Manifest | undefined): Promise<number> {
    const { path, form } = this.request
    const { top, below, bulk } = await membersOf(images)
    return attempt(`write ${path}`, async () => {
      await this.packer.add(directoryFd, top)
      await this.packer.add(directoryFd, below, IMAGE_FOLDER)
      await this.packer.add(directoryFd, bulk)
      const [archive] = await this.packer.finish()
      const { size = 0 } = archive ?? {}
      const total = form === 'oci-archive' ? await this.#makeImage(images, size, manifest) : size
      await this.#publish()
      return total
    })
  }

  /** Around the layer, which is there. Answers the size of all of it. */
  async #makeImage(images: ImageSource, size: number, manifest: Manifest | undefined): Promise<number> {
    const container = readContainer(await images.read(CONTAINER_FILES), 0)
    await using file = await open(at(this.parentFd, this.#made ?? ''), constants.O_RDWR | constants.O_NOFOLLOW)
    const { head, tail } = around({
      sha256: await this.files.sha256(file.fd, { offset: HEAD_BYTES, size }),
      size,
      name: nameOf(this.request.image, container),
      annotations: annotationsOf(container, manifest),
      created: new Date(),
    })
    await file.write(head, 0, head.length, 0)
    await file.write(tail, 0, tail.length, HEAD_BYTES + size)
    await file.datasync()
    return HEAD_BYTES + size + tail.length
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

/** The writable layer of a container: as a file of a checkpoint, and as one more layer of an image. */
import { createHash, randomBytes } from 'node:crypto'
import type { z } from 'zod'
import { CedanaError } from '../contract/errors.js'
import type { Host } from '../contract/host.js'
import type { SaveContext } from '../contract/runtime.js'
import { Containerd, found, isThereAlready } from './client.js'
import type { Container } from './gen/containers.js'
import { ContentService, WriteAction } from './gen/content.js'
import { DiffService } from './gen/diff.js'
import { ImagesService } from './gen/images.js'
import { IntrospectionService } from './gen/introspection.js'
import { SnapshotsService } from './gen/snapshots.js'
import { TasksService } from './gen/tasks.js'
import { Status } from './gen/task.js'
import type { Descriptor } from './gen/types.js'
import { findImage, imageMissing, readImage } from './images.js'
import { leased } from './lease.js'
import type { DumpOptions } from './options.js'
import { LAYER } from './saved.js'
import { findContainer, findTask, identityOf, missing } from './state.js'
import { onceBack } from './undo.js'

const TAR = 'application/vnd.oci.image.layer.v1.tar'
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const CONFIG = 'application/vnd.oci.image.config.v1+json'

/** Where nobody has stopped the processes for us they are, for as long as it takes. */
export async function save(host: Host, context: SaveContext, options: z.output<typeof DumpOptions>): Promise<() => Promise<void>> {
  const identity = identityOf(context.identity)
  using containerd = new Containerd(identity, host.signal)
  using patient = new Containerd(identity)
  const container = await findContainer(containerd, identity.id)
  if (!container) throw missing(identity)
  return await leased({ host, containerd, patient }, async () => {
    const layer = await stopped({ containerd, patient }, identity.id, context.isStopped, () => diff(containerd, container))
    await copyBlob(host, containerd, layer, `${context.directory}/${LAYER}`)
    if (options.image === undefined) return async () => undefined
    await commit(containerd, container, { name: options.image, layer })
    const name = options.image
    return async () => {
      using again = new Containerd(identity)
      await found(again.call(ImagesService.delete, { name }))
    }
  })
}

interface Connections {
  readonly containerd: Containerd
  /** Not ended by who gave up. */
  readonly patient: Containerd
}

async function stopped<T>({ containerd, patient }: Connections, id: string, isStopped: boolean, work: () => Promise<T>): Promise<T> {
  const task = isStopped ? undefined : await findTask(containerd, id)
  if (task?.status !== Status.RUNNING) return work()
  await containerd.call(TasksService.pause, { containerId: id })
  try {
    return await work()
  } finally {
    await onceBack(() => patient.call(TasksService.resume, { containerId: id }))
  }
}

/** What differs from the layers below, in containerd's store of content. */
async function diff(containerd: Containerd, { snapshotter, snapshotKey: key }: Container): Promise<Descriptor> {
  const { info } = await containerd.call(SnapshotsService.stat, { snapshotter, key })
  const view = `cedana-view-${randomBytes(8).toString('hex')}`
  const [{ mounts: right }, { mounts: left }] = await Promise.all([
    containerd.call(SnapshotsService.mounts, { snapshotter, key }),
    containerd.call(SnapshotsService.view, { snapshotter, key: view, parent: info?.parent ?? '' }),
  ])
  try {
    const { diff: layer } = await containerd.call(DiffService.diff, { left, right, mediaType: TAR, ref: view })
    if (!layer) throw new CedanaError('HOST_UNFIT', 'containerd made no diff of the writable layer')
    return layer
  } finally {
    await found(containerd.call(SnapshotsService.remove, { snapshotter, key: view }))
  }
}

const FULL: readonly string[] = ['No space left on device', 'Disk quota exceeded']

/** By a program: as much as a container has written does not pass through this process. */
async function copyBlob(host: Host, containerd: Containerd, { digest, size }: Descriptor, path: string): Promise<void> {
  const { plugins } = await containerd.call(IntrospectionService.plugins, { filters: ['type==io.containerd.content.v1'] })
  const root = plugins.find(({ id }) => id === 'content')?.exports['root']
  if (root === undefined) throw new CedanaError('HOST_UNFIT', 'containerd does not say where its content is')
  const from = `${root}/blobs/${digest.replace(':', '/')}`
  const { code, stderr } = await host.exec(['env', 'LC_ALL=C', 'cp', '--reflink=auto', '--sparse=never', from, path])
  if (code === 0) return
  const reason = stderr.trim().split(': ').at(-1) ?? ''
  const message = `cannot write the writable layer, ${(size / 2 ** 20).toFixed(1)} MiB, into the checkpoint: ${reason.toLowerCase()}`
  throw FULL.includes(reason)
    ? new CedanaError('NO_SPACE', message, { hint: 'free some space there or choose another directory with --dir' })
    : new CedanaError('STORAGE_FAILED', message)
}

interface Commit {
  readonly name: string
  readonly layer: Descriptor
}

/** The image that the container was made of, and its writable layer on top. */
async function commit(containerd: Containerd, container: Container, { name, layer }: Commit): Promise<void> {
  const base = await findImage(containerd, container.image)
  if (!base) throw imageMissing(containerd, container.image)
  const { config, manifest } = await readImage(containerd, base)
  const created = new Date().toISOString()
  const history = Array.isArray(config['history']) ? (config['history'] as unknown[]) : []
  const newConfig = {
    ...config,
    created,
    rootfs: { ...config.rootfs, diff_ids: [...config.rootfs.diff_ids, layer.digest] },
    history: [...history, { created, created_by: 'cedana dump', comment: `writable layer of container ${container.id}` }],
  }
  const configBlob = { mediaType: CONFIG, ...(await addBlob(containerd, newConfig, {})) }
  const layers = [...manifest.layers, { mediaType: TAR, digest: layer.digest, size: layer.size }]
  const references = [configBlob, ...layers].map(({ digest }, index) => [`containerd.io/gc.ref.content.${index}`, digest])
  const top = { schemaVersion: 2, mediaType: MANIFEST, config: configBlob, layers }
  const target = { mediaType: MANIFEST, annotations: {}, ...(await addBlob(containerd, top, Object.fromEntries(references) as Labels)) }
  try {
    await containerd.call(ImagesService.create, { image: { name, labels: {}, target, createdAt: undefined, updatedAt: undefined } })
  } catch (thrown) {
    throw isThereAlready(thrown) ? new CedanaError('TARGET_UNFIT', `image ${name} exists already`, { cause: thrown }) : thrown
  }
}

type Labels = Record<string, string>

async function addBlob(
  containerd: Containerd,
  value: unknown,
  labels: Labels,
): Promise<{ readonly digest: string; readonly size: number }> {
  const data = Buffer.from(JSON.stringify(value))
  const digest = `sha256:${createHash('sha256').update(data).digest('hex')}`
  const size = data.length
  const whole = { action: WriteAction.COMMIT, ref: `cedana-${randomBytes(8).toString('hex')}`, total: size, expected: digest, data, labels }
  const requests = async function* (): AsyncGenerator<typeof whole> {
    yield whole
  }
  await containerd.upload(ContentService.write, requests()).catch((thrown: unknown) => {
    if (!isThereAlready(thrown)) throw thrown
  })
  return { digest, size }
}

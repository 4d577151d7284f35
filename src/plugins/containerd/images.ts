/** Images of containerd: what is in one, and its layers as snapshots. */
import { createHash, randomBytes } from 'node:crypto'
import { z } from 'zod'
import { CedanaError } from '../contract/errors.js'
import { type Containerd, found, isThereAlready } from './client.js'
import { ContentService } from './gen/content.js'
import { DiffService } from './gen/diff.js'
import { type Image, ImagesService } from './gen/images.js'
import { SnapshotsService } from './gen/snapshots.js'
import type { Descriptor } from './gen/types.js'

const Blob = z.looseObject({ mediaType: z.string(), digest: z.string(), size: z.number() })
const Index = z.looseObject({
  manifests: z.array(Blob.extend({ platform: z.looseObject({ os: z.string(), architecture: z.string() }).optional() })),
})
const Manifest = z.looseObject({ config: Blob, layers: z.array(Blob) })
const lines = z
  .array(z.string())
  .nullish()
  .transform((value) => value ?? [])
const text = z
  .string()
  .nullish()
  .transform((value) => value ?? '')
const Settings = z.looseObject({
  Env: lines,
  Entrypoint: lines,
  Cmd: lines,
  WorkingDir: text,
  User: text,
  StopSignal: text,
  Labels: z
    .record(z.string(), z.string())
    .nullish()
    .transform((value) => value ?? {}),
})
/** Of an image that is none. */
export const NO_SETTINGS = Settings.parse({})
const Config = z.looseObject({
  config: Settings.nullish().transform((value) => value ?? NO_SETTINGS),
  rootfs: z.looseObject({ diff_ids: z.array(z.string()) }),
})

export type ImageSettings = z.output<typeof Settings>

const STOP_SIGNAL = 'io.containerd.image.config.stop-signal'
/** What containerd takes for one, name and value. */
const MAX_LABEL_BYTES = 4096

/** As containerd's own clients label a container of it: who is to stop it later looks for its signal there. */
export function labelsFor({ Labels, StopSignal }: ImageSettings): Readonly<Record<string, string>> {
  const fits = ([name, value]: [string, string]): boolean => Buffer.byteLength(name) + Buffer.byteLength(value) <= MAX_LABEL_BYTES
  return { ...Object.fromEntries(Object.entries(Labels).filter(fits)), [STOP_SIGNAL]: StopSignal || 'SIGTERM' }
}

export interface ImageContent {
  readonly settings: ImageSettings
  /** The config as it is: a new image with one more layer has the same and more. */
  readonly config: z.output<typeof Config>
  readonly manifest: z.output<typeof Manifest>
  /** Names of the snapshots of its layers, from the lowest up. */
  readonly chain: readonly string[]
}

/** Manifests and configs, never layers. */
const MAX_BLOB_BYTES = 8 * 2 ** 20
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386' }

async function readJson(containerd: Containerd, digest: string): Promise<unknown> {
  const parts: Uint8Array[] = []
  let size = 0
  for await (const { data } of containerd.stream(ContentService.read, { digest })) {
    size += data.length
    if (size > MAX_BLOB_BYTES) throw new CedanaError('HOST_UNFIT', `content ${digest} is too large to be read`)
    parts.push(data)
  }
  return JSON.parse(Buffer.concat(parts).toString()) as unknown
}

export const findImage = async (containerd: Containerd, name: string): Promise<Image | undefined> =>
  (await found(containerd.call(ImagesService.get, { name })))?.image

export const imageMissing = (containerd: Containerd, name: string): CedanaError =>
  new CedanaError('HOST_UNFIT', `image ${name} is not in namespace ${containerd.place.namespace} of containerd`, {
    hint: `fetch it first: ctr --namespace ${containerd.place.namespace} images pull ${name} (or images import)`,
  })

export async function readImage(containerd: Containerd, image: Image): Promise<ImageContent> {
  const incomplete = (cause: unknown): CedanaError =>
    new CedanaError('HOST_UNFIT', `image ${image.name} is not whole`, { cause, hint: `fetch it again: ctr images pull ${image.name}` })
  try {
    let top = await readJson(containerd, image.target?.digest ?? '')
    const index = Index.safeParse(top)
    if (index.success) {
      const architecture = ARCHITECTURES[process.arch] ?? process.arch
      const own = index.data.manifests.find(({ platform }) => platform?.os === 'linux' && platform.architecture === architecture)
      const chosen = own ?? index.data.manifests.find(({ platform }) => platform === undefined)
      if (!chosen) throw new CedanaError('HOST_UNFIT', `image ${image.name} has nothing for linux/${architecture}`)
      top = await readJson(containerd, chosen.digest)
    }
    const manifest = Manifest.parse(top)
    const config = Config.parse(await readJson(containerd, manifest.config.digest))
    return { settings: config.config, config, manifest, chain: chainOf(config.rootfs.diff_ids) }
  } catch (thrown) {
    if (thrown instanceof CedanaError && thrown.detail['grpc'] === undefined) throw thrown
    throw incomplete(thrown)
  }
}

const sha256 = (value: string): string => `sha256:${createHash('sha256').update(value).digest('hex')}`

/** As the OCI image specification names what layers add up to. */
export function chainOf(diffIds: readonly string[]): readonly string[] {
  const chain: string[] = []
  for (const id of diffIds) chain.push(chain.length === 0 ? id : sha256(`${chain.at(-1) ?? ''} ${id}`))
  return chain
}

export const hasSnapshot = async (containerd: Containerd, snapshotter: string, key: string): Promise<boolean> =>
  (await found(containerd.call(SnapshotsService.stat, { snapshotter, key }))) !== undefined

/** The layers of an image as snapshots, those that are not yet. Answers the name of the topmost. */
export async function unpack(containerd: Containerd, image: ImageContent, snapshotter: string): Promise<string> {
  const { chain, manifest, config } = image
  const top = chain.at(-1) ?? ''
  if (top === '' || (await hasSnapshot(containerd, snapshotter, top))) return top
  for (const [index, name] of chain.entries()) {
    const layer = manifest.layers[index]
    const wanted = config.rootfs.diff_ids[index]
    if (layer === undefined || (await hasSnapshot(containerd, snapshotter, name))) continue
    const key = `cedana-${randomBytes(6).toString('hex')} ${name}`
    const { mounts } = await containerd.call(SnapshotsService.prepare, { snapshotter, key, parent: chain[index - 1] ?? '' })
    try {
      const { applied } = await containerd.call(DiffService.apply, { diff: descriptor(layer), mounts })
      if (applied?.digest !== wanted) throw new CedanaError('IMAGE_CORRUPT', `layer ${layer.digest} is not what its image says`)
      await containerd.call(SnapshotsService.commit, { snapshotter, key, name })
    } catch (thrown) {
      await found(containerd.call(SnapshotsService.remove, { snapshotter, key }))
      // Somebody else was faster.
      if (!isThereAlready(thrown)) throw thrown
    }
  }
  // Else nothing refers to the snapshots, and containerd collects them.
  const label = `containerd.io/gc.ref.snapshot.${snapshotter}`
  await containerd.call(ContentService.update, {
    info: { digest: manifest.config.digest, size: 0, createdAt: undefined, updatedAt: undefined, labels: { [label]: top } },
    updateMask: [`labels.${label}`],
  })
  return top
}

export const descriptor = ({ mediaType, digest, size }: z.output<typeof Blob>): Descriptor => ({ mediaType, digest, size, annotations: {} })

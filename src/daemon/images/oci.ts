/**
 * Checkpoints as OCI images: a layout in a tar or a directory, of which one image has a single layer that is the archive of a checkpoint (CRI-O,
 * containerd's CRI, podman, cedana), or lists CRIU's images as a blob of their own (containerd's `ctr containers checkpoint`).
 */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { CedanaError } from '../../plugins/contract/errors.js'

export const LAYOUT = 'oci-layout'
export const INDEX = 'index.json'
/** What containerd's own checkpoints have CRIU's images in: a tar of them. */
const CRIU_TAR = 'application/vnd.containerd.container.criu.checkpoint.criu.tar'

const Digest = z.string().regex(/^sha256:[0-9a-f]{64}$/)
const Annotations = z.record(z.string(), z.string()).nullish()
const Descriptor = z.looseObject({ mediaType: z.string().nullish(), digest: Digest, size: z.int().nonnegative(), annotations: Annotations })
const Manifest = z.looseObject({ layers: z.array(Descriptor) })
const Index = z.looseObject({ manifests: z.array(Descriptor) })
type Descriptor = z.output<typeof Descriptor>

/** An index of images, with that of each platform below: deeper is nobody's. */
const MAX_DEPTH = 3
/** Of an index, a manifest. */
export const MAX_BLOB_BYTES = 4 << 20

export interface OciLayout {
  readonly path: string
  /** The content of a file of the layout, at most MAX_BLOB_BYTES; undefined: there is none. */
  read(name: string): Promise<Uint8Array | undefined>
}

/** Where a checkpoint is: a file of the layout. */
export interface Blob {
  readonly name: string
  readonly size: number
  /** SHA-256 in hex. */
  readonly sha256: string
}

const blobOf = ({ digest, size }: Descriptor): Blob => {
  const sha256 = digest.slice('sha256:'.length)
  return { name: `blobs/sha256/${sha256}`, size, sha256 }
}

/** Those that are said to be something else are: layers, protobuf. */
const isJson = ({ mediaType }: Descriptor): boolean => /json$/.test(mediaType ?? 'json')

interface Found {
  readonly blob: Blob
  /** Of the image. */
  readonly name: string
  readonly isCriu: boolean
}

const nameOf = ({ annotations, digest }: Descriptor): string =>
  annotations?.['io.containerd.image.name'] ?? annotations?.['org.opencontainers.image.ref.name'] ?? digest

async function readJson(layout: OciLayout, name: string, sha256?: string): Promise<unknown> {
  const bytes = await layout.read(name)
  const isWhole = bytes !== undefined && (sha256 === undefined || createHash('sha256').update(bytes).digest('hex') === sha256)
  try {
    if (isWhole) return JSON.parse(Buffer.from(bytes).toString()) as unknown
  } catch {
    // As any other that is not what it should be.
  }
  throw damaged(layout, name, bytes ? 'is not what its name says' : 'is missing')
}

const damaged = ({ path }: OciLayout, name: string, what: string): CedanaError =>
  new CedanaError('IMAGE_CORRUPT', `${path} is damaged: ${name} ${what}`, { detail: { files: [name] }, hint: 'use another checkpoint' })

/** Of what an index names: images with one layer, and checkpoints of containerd's own. */
async function candidates(layout: OciLayout, index: z.output<typeof Index>, below: string, depth: number): Promise<readonly Found[]> {
  const own = index.manifests.find(({ mediaType }) => mediaType === CRIU_TAR)
  if (own) return [{ blob: blobOf(own), name: below, isCriu: true }]
  const found: Found[] = []
  for (const descriptor of index.manifests) {
    const blob = blobOf(descriptor)
    if (!isJson(descriptor) || blob.size > MAX_BLOB_BYTES) continue
    const name = below || nameOf(descriptor)
    const content = await readJson(layout, blob.name, blob.sha256)
    const [manifest, further] = [Manifest.safeParse(content), Index.safeParse(content)]
    if (further.success && depth < MAX_DEPTH) found.push(...(await candidates(layout, further.data, name, depth + 1)))
    const layers = manifest.success ? manifest.data.layers : []
    if (layers.length === 1) found.push(...layers.map((layer) => ({ blob: blobOf(layer), name, isCriu: false })))
  }
  return found
}

/** The one checkpoint in it. What is in the layer shows when that is read. */
export async function findCheckpoint(layout: OciLayout): Promise<Blob> {
  const index = Index.safeParse(await readJson(layout, INDEX))
  if (!index.success) throw damaged(layout, INDEX, 'is not what its name says')
  const found = await candidates(layout, index.data, '', 1)
  const different = [...new Map(found.map((one) => [one.blob.sha256, one])).values()]
  const [only, ...others] = different
  if (!only)
    throw new CedanaError('IMAGE_CORRUPT', `${layout.path} is an OCI image, but of no checkpoint: that has one layer`, {
      detail: { files: [INDEX] },
    })
  if (others.length === 0) return only.blob
  const names = different.map(({ name }) => name).join(', ')
  throw new CedanaError('BAD_OPTIONS', `${layout.path} has several images: ${names}`, { hint: 'export the one that is wanted alone' })
}

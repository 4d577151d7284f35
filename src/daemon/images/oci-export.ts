/** What is around the layer in the OCI archive of a checkpoint: config, manifest, index, and the tar they are in. */
import { createHash } from 'node:crypto'
import type { ContainedContainer } from './container.js'
import { HEAD_BYTES } from './files.js'
import type { Manifest } from './manifest.js'
import { INDEX, LAYOUT } from './oci.js'

const MEDIA = 'application/vnd.oci.image'
const BLOCK = 512
/** As OCI, like Go, calls them. */
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386' }

/** By which each of those that restore such images knows one. */
export function annotationsOf(container: ContainedContainer | undefined, manifest: Manifest | undefined): Readonly<Record<string, string>> {
  const { name = '', image = '', runtime = '', engine = '', pod = '', podNamespace = '' } = container ?? {}
  const { criuVersion, host } = manifest ?? {}
  const criu =
    criuVersion === undefined ? '' : [criuVersion / 10_000, (criuVersion / 100) % 100, criuVersion % 100].map(Math.trunc).join('.')
  const common = {
    rootfsImageName: image,
    rawImageName: image,
    'runtime.name': runtime,
    'criu.version': criu,
    'host.kernel': host?.kernel ?? '',
    'host.arch': host ? architecture(host.arch) : '',
  }
  const all = {
    ...under('org.criu.checkpoint', {
      ...common,
      'container.name': name,
      'engine.name': engine || 'cedana',
      'pod.name': pod,
      'pod.namespace': podNamespace,
    }),
    ...under('io.podman.annotations.checkpoint', { ...common, name }),
    ...under('io.kubernetes.cri-o.annotations.checkpoint', {
      name,
      rootfsImageName: image,
      rawImageName: image,
      'criu.version': criu,
    }),
  }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== ''))
}

const under = (prefix: string, values: Readonly<Record<string, string>>): Readonly<Record<string, string>> =>
  Object.fromEntries(Object.entries(values).map(([key, value]) => [`${prefix}.${key}`, value]))

const architecture = (name: string): string => ARCHITECTURES[name] ?? name

/** `asked`: by the user, or empty. */
export function nameOf(asked: string, container: ContainedContainer | undefined): string {
  const words = ['checkpoint', ...(container?.name.toLowerCase().match(/[a-z0-9]+/g) ?? [])]
  const name = asked || `localhost/${words.join('-')}`
  return /:[^/]*$/.test(name) ? name : `${name}:latest`
}

export interface OciImage {
  /** Of the layer, which is a plain tar. */
  readonly sha256: string
  readonly size: number
  /** Of the image: `localhost/checkpoint-web:latest`. */
  readonly name: string
  readonly annotations: Readonly<Record<string, string>>
  readonly created: Date
}

function tarHeader(name: string, size: number, time: Date): Buffer {
  const header = Buffer.alloc(BLOCK)
  const octal = (value: number, width: number): string => `${value.toString(8).padStart(width - 1, '0')}\0`
  const isDirectory = name.endsWith('/')
  header.write(name)
  header.write(octal(isDirectory ? 0o755 : 0o644, 8) + octal(0, 8) + octal(0, 8), 100)
  // Base 256, as GNU tar writes what does not fit into eleven digits.
  if (size < 8 ** 11) header.write(octal(size, 12), 124)
  else header.writeBigUInt64BE(BigInt(size), header.writeUInt32BE(0x80000000, 124))
  header.write(octal(Math.floor(time.getTime() / 1000), 12), 136)
  header.write(`        ${isDirectory ? '5' : '0'}`, 148)
  header.write('ustar\x0000', 257)
  const sum = header.reduce((total, byte) => total + byte, 0)
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return header
}

const padding = (size: number): Buffer => Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK)
const member = (name: string, content: Buffer, time: Date): Buffer =>
  Buffer.concat([tarHeader(name, content.length, time), content, padding(content.length)])
const directory = (name: string, time: Date): Buffer => tarHeader(`${name}/`, 0, time)
const blobPath = (sha256: string): string => `blobs/sha256/${sha256}`
const json = (value: object): Buffer => Buffer.from(JSON.stringify(value))

/** What comes before the layer, HEAD_BYTES, and what behind it. */
export function around({ sha256, size, name, annotations, created }: OciImage): { readonly head: Buffer; readonly tail: Buffer } {
  const blobs: Buffer[] = []
  const add = (mediaType: string, value: object): object => {
    const content = json(value)
    const digest = createHash('sha256').update(content).digest('hex')
    blobs.push(member(blobPath(digest), content, created))
    return { mediaType: `${MEDIA}.${mediaType}`, digest: `sha256:${digest}`, size: content.length }
  }
  const config = add('config.v1+json', {
    created: created.toISOString(),
    architecture: architecture(process.arch),
    os: 'linux',
    config: {},
    rootfs: { type: 'layers', diff_ids: [`sha256:${sha256}`] },
    history: [{ created: created.toISOString(), created_by: 'cedana checkpoint export' }],
  })
  const layer = { mediaType: `${MEDIA}.layer.v1.tar`, digest: `sha256:${sha256}`, size }
  const mediaType = `${MEDIA}.manifest.v1+json`
  const manifest = add('manifest.v1+json', { schemaVersion: 2, mediaType, config, layers: [layer], annotations })
  // Each tool looks for the name under one of these.
  const names = { 'io.containerd.image.name': name, 'org.opencontainers.image.ref.name': name }
  const index = json({ schemaVersion: 2, mediaType: `${MEDIA}.index.v1+json`, manifests: [{ ...manifest, annotations: names }] })
  const directories = [directory('blobs', created), directory('blobs/sha256', created)]
  const layerHeader = tarHeader(blobPath(sha256), size, created)
  // Filled up with what JSON lets stand behind it, so that the layer begins with a block of the disk.
  const version = json({ imageLayoutVersion: '1.0.0' }).toString()
  const room = HEAD_BYTES - (directories.length + 2) * BLOCK
  const layout = member(LAYOUT, Buffer.from(version.padEnd(room)), created)
  return {
    head: Buffer.concat([layout, ...directories, layerHeader]),
    tail: Buffer.concat([padding(size), ...blobs, member(INDEX, index, created), Buffer.alloc(2 * BLOCK)]),
  }
}

/** `manifest.json`: what a checkpoint is and of which files it consists. Written last; a checkpoint without it was never finished. */
import { z } from 'zod'
import { CedanaError } from '../../plugins/contract/errors.js'
import { STDIO_MODES } from '../../plugins/contract/job.js'
import { COMPRESSIONS } from './layout.js'

export const MANIFEST = 'manifest.json'
export const MANIFEST_VERSION = 1
const FORMAT = 'cedana-checkpoint'
export const MAX_MANIFEST_BYTES = 64 << 20

const Digested = z.looseObject({ name: z.string(), size: z.int().nonnegative(), digest: z.string().regex(/^[0-9a-f]{32}$/) })

/** Loose: keys that a later version adds are kept and ignored. */
const Manifest = z.looseObject({
  cedana: z.string(),
  createdAt: z.iso.datetime(),
  type: z.string(),
  /** Empty when no job was dumped. */
  jid: z.string(),
  target: z.looseObject({ pid: z.int(), startTicks: z.string(), bootId: z.string() }),
  stdio: z.looseObject({
    mode: z.enum(STDIO_MODES),
    /** Inodes of the pipes the shim holds the other end of (`pipe`). */
    pipes: z.looseObject({ stdin: z.string(), stdout: z.string(), stderr: z.string() }).optional(),
    /** The terminal whose master the shim holds (`tty`); numbers as in CRIU's keys. */
    tty: z.looseObject({ path: z.string(), device: z.int(), deviceId: z.int() }).optional(),
    /** The log that was the standard output (`log`), or got a copy of it. */
    log: z.string().optional(),
  }),
  host: z.looseObject({
    id: z.string(),
    name: z.string(),
    kernel: z.string(),
    arch: z.string(),
    cpu: z.looseObject({ vendor: z.string(), model: z.string(), flags: z.array(z.string()) }),
  }),
  /** CRIU's version as a number: 40201 is 4.2.1. */
  criuVersion: z.int(),
  compression: z.enum(COMPRESSIONS),
  leaveRunning: z.boolean(),
  /** Options of criu_opts that the restore must repeat. */
  criu: z.looseObject({
    tcpEstablished: z.boolean(),
    /** Left out: no. */
    tcpClose: z.boolean().optional(),
    shellJob: z.boolean(),
    fileLocks: z.boolean(),
    linkRemap: z.boolean(),
    extUnixSockets: z.boolean(),
    external: z.array(z.string()),
  }),
  /** What the runtime plugin wants to find again. */
  details: z.record(z.string(), z.unknown()),
  /** Parts saved by components of their own (GPU, root file system …), each with its own version. */
  sections: z.array(z.looseObject({ name: z.string(), version: z.int(), data: z.unknown() })),
  files: z.array(Digested),
  /** In which the files are, where they are in shards. */
  shards: z.array(Digested).optional(),
  totalBytes: z.int().nonnegative(),
})
export type Manifest = Readonly<z.output<typeof Manifest>>
/** All of a manifest but what the writer knows itself. */
export type ManifestInput = Omit<z.input<typeof Manifest>, 'files' | 'shards' | 'totalBytes' | 'compression'>

type Digest = (bytes: Uint8Array) => string

/** What the digest is taken of: version and body as JSON.stringify writes them, whatever the indentation in the file. */
const sealed = (version: unknown, body: unknown, digest: Digest): string => digest(Buffer.from(JSON.stringify({ version, body })))

export function encodeManifest(manifest: Manifest, digest: Digest): Uint8Array {
  const body: unknown = JSON.parse(JSON.stringify(manifest))
  const envelope = { format: FORMAT, version: MANIFEST_VERSION, digest: sealed(MANIFEST_VERSION, body, digest), body }
  return Buffer.from(`${JSON.stringify(envelope, null, 2)}\n`)
}

const Envelope = z.looseObject({ format: z.literal(FORMAT), version: z.int(), digest: z.string(), body: z.unknown() })

/** Throws IMAGE_CORRUPT when a single bit differs from what was written, FORMAT_UNSUPPORTED when a newer cedana wrote it. */
export function decodeManifest(bytes: Uint8Array, digest: Digest): Manifest {
  const corrupt = (why: string, cause?: unknown): CedanaError =>
    new CedanaError('IMAGE_CORRUPT', `${MANIFEST} is damaged: ${why}`, {
      cause,
      detail: { files: [MANIFEST] },
      hint: 'use another checkpoint',
    })
  let parsed: unknown
  try {
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes))
  } catch (cause) {
    throw corrupt('it is not JSON', cause)
  }
  const envelope = Envelope.safeParse(parsed)
  if (!envelope.success) throw corrupt('it is no checkpoint manifest', envelope.error)
  const { version, body } = envelope.data
  if (sealed(version, body, digest) !== envelope.data.digest) throw corrupt('its content changed')
  if (version > MANIFEST_VERSION) {
    const message = `the checkpoint has format version ${version}, this cedana reads up to ${MANIFEST_VERSION}`
    throw new CedanaError('FORMAT_UNSUPPORTED', message, { hint: 'restore it with a newer cedana' })
  }
  const manifest = Manifest.safeParse(body)
  if (!manifest.success) throw corrupt(z.prettifyError(manifest.error), manifest.error)
  return manifest.data
}

/** Names of checkpoints, and of what stands beside them while they are made. */
import { extname } from 'node:path'
import { CedanaError } from '../../plugins/contract/errors.js'

export const COMPRESSIONS = ['none', 'tar', 'gzip', 'lz4', 'zlib', 'zstd'] as const
export type Compression = (typeof COMPRESSIONS)[number]
/** How the bytes of an archive are coded; `none` is a directory. */
export type ArchiveFormat = Exclude<Compression, 'none'>

const SUFFIXES: Readonly<Record<Compression, string>> = {
  none: '',
  tar: '.tar',
  gzip: '.tar.gz',
  lz4: '.tar.lz4',
  zlib: '.tar.zlib',
  zstd: '.tar.zst',
}
const FORMATS: ReadonlyMap<string, ArchiveFormat> = new Map([
  ['', 'tar'],
  ['.tar', 'tar'],
  ['.gz', 'gzip'],
  ['.tgz', 'gzip'],
  ['.lz4', 'lz4'],
  ['.zlib', 'zlib'],
  ['.zst', 'zstd'],
])

/** Leaves room for the suffix and for what a partial name adds (a file name has at most 255 bytes). */
const MAX_NAME_BYTES = 180

export const suffixOf = (compression: Compression): string => SUFFIXES[compression]

const SHARD_SUFFIXES: Readonly<Record<ArchiveFormat, string>> = { tar: '', gzip: '.gz', lz4: '.lz4', zlib: '.zlib', zstd: '.zst' }
const SHARD = /^img-(0|[1-9]\d*)(\.[^.]*)?$/

/** How the shards of such a checkpoint are packed; `none` and `tar` are the same there. */
export const shardFormat = (compression: Compression): ArchiveFormat => (compression === 'none' ? 'tar' : compression)
export const shardNames = (compression: Compression, streams: number): string[] =>
  Array.from({ length: streams }, (_, index) => `img-${index}${SHARD_SUFFIXES[shardFormat(compression)]}`)

export interface Shards {
  readonly format: ArchiveFormat
  /** In their order. */
  readonly names: readonly string[]
}

/** The shards among the entries of a directory; undefined: there are none. Throws IMAGE_CORRUPT unless they are one set from img-0 on. */
export function findShards(path: string, entries: readonly string[]): Shards | undefined {
  const found = entries
    .flatMap((name) => {
      const [, index, suffix = ''] = SHARD.exec(name) ?? []
      return index === undefined ? [] : [{ name, index: Number(index), suffix }]
    })
    .sort((a, b) => a.index - b.index)
  const [first] = found
  if (!first) return undefined
  const format = (Object.keys(SHARD_SUFFIXES) as ArchiveFormat[]).find((one) => SHARD_SUFFIXES[one] === first.suffix)
  if (!format) throw unsupported(path, first.suffix)
  const odd = found.find(({ index, suffix }, at) => index !== at || suffix !== first.suffix)
  if (!odd) return { format, names: found.map(({ name }) => name) }
  throw new CedanaError('IMAGE_CORRUPT', `${path} is damaged: ${odd.name} does not fit to the other streams, or one before it is missing`, {
    detail: { path, files: [odd.name] },
    hint: 'use another checkpoint',
  })
}

/** The compression a user asked for. Throws FORMAT_UNSUPPORTED. */
export function parseCompression(value: string): Compression {
  const known = COMPRESSIONS.find((compression) => compression === value)
  if (known) return known
  throw new CedanaError('FORMAT_UNSUPPORTED', `unsupported compression format '${value}'`, {
    hint: `use one of ${COMPRESSIONS.join(', ')}`,
  })
}

/**
 * How to read the archive at `path`, by its extension; without one it is a plain tar. What it begins with, where that is known, says better: podman
 * compresses as it is told, whatever the name.
 */
export function formatOf(path: string, begin: Uint8Array = new Uint8Array()): ArchiveFormat {
  const extension = extname(path)
  const format = FORMATS.get(extension)
  if (!format) throw unsupported(path, extension)
  return MAGICS.find(([, magic]) => Buffer.from(begin).subarray(0, magic.length).equals(magic))?.[0] ?? format
}
/** Of a plain tar, and of zlib, there is none at the beginning that nothing else has. */
const MAGICS: readonly (readonly [ArchiveFormat, Buffer])[] = [
  ['gzip', Buffer.from([0x1f, 0x8b, 8])],
  ['lz4', Buffer.from([0x04, 0x22, 0x4d, 0x18])],
  ['zstd', Buffer.from([0x28, 0xb5, 0x2f, 0xfd])],
]
export const MAGIC_BYTES = 4

function unsupported(path: string, extension: string): CedanaError {
  const hint = `a checkpoint is a directory or ends in ${Object.values(SUFFIXES).filter(Boolean).join(', ')}`
  return new CedanaError('FORMAT_UNSUPPORTED', `Unsupported compression format: ${extension}`, { detail: { path }, hint })
}

/** How many streams a user asked for; 0: none. */
export function parseStreams(asked: number, configured: number): number {
  const streams = asked === 0 ? configured : asked
  if (streams === 1) {
    throw new CedanaError('BAD_OPTIONS', 'A minimum of 2 streams are required for streaming. Specify 0 to disable streaming.')
  }
  if (streams < 0 || streams > MAX_STREAMS) throw new CedanaError('BAD_OPTIONS', `--streams takes 0 or 2 to ${MAX_STREAMS}`)
  return streams
}
const MAX_STREAMS = 64

const BEST_LEVELS: Readonly<Record<Compression, number>> = { none: 0, tar: 0, gzip: 9, lz4: 12, zlib: 9, zstd: 22 }

/** The level to pack with; undefined: the default of the format. What is configured is for all formats, and of one with fewer levels means its best. */
export function parseLevel(compression: Compression, asked: number | undefined, configured: number): number | undefined {
  const best = BEST_LEVELS[compression]
  if (asked !== undefined && (asked < 0 || asked > best)) {
    const what = best === 0 ? `compression ${compression} has no levels` : `--level takes 0 to ${best} for ${compression}`
    throw new CedanaError('BAD_OPTIONS', `${what}, not ${asked}`)
  }
  return (asked ?? Math.min(configured, best)) || undefined
}

/** How many checkpoints of a job a user wants to have; 0: all. */
export function parseKeepLast(asked: number | undefined, configured: number): number {
  const keep = asked ?? configured
  if (keep < 0) throw new CedanaError('BAD_OPTIONS', '--keep-last takes 0, or how many checkpoints the job is to have')
  return keep
}

/** `dump-process-<ns>`, or `dump-process-<jid>-<ns>` for a job. Nanoseconds, so that two dumps of one job never collide. */
export const defaultName = (type: string, jid: string | undefined, unixNs: bigint): string =>
  ['dump', type, ...(jid ? [jid] : []), unixNs.toString()].join('-')

/** Wall clock in nanoseconds; strictly increasing within this process although the clock has milliseconds only. */
export function unixNanoseconds(): bigint {
  const now = BigInt(Date.now()) * 1_000_000n + (process.hrtime.bigint() % 1_000_000n)
  lastNs = now > lastNs ? now : lastNs + 1n
  return lastNs
}
let lastNs = 0n

/** Throws BAD_OPTIONS unless `name` can be the name of a checkpoint in its directory. */
export function checkName(name: string): void {
  const bad = (why: string): CedanaError => new CedanaError('BAD_OPTIONS', `invalid checkpoint name ${JSON.stringify(name)}: ${why}`)
  if (name === '') throw bad('it is empty')
  if (name.includes('/')) throw bad('it contains a slash')
  if (name.startsWith('.')) throw bad('it starts with a dot')
  if (/[\u0000-\u001f\u007f]/.test(name)) throw bad('it contains a control character')
  if (Buffer.byteLength(name) > MAX_NAME_BYTES) throw bad(`it is longer than ${MAX_NAME_BYTES} bytes`)
}

/** Throws NO_SUCH_PLUGIN for `scheme://…`. */
export function requireLocal(path: string): void {
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(path)?.[1]?.toLowerCase()
  if (scheme)
    throw new CedanaError('NO_SUCH_PLUGIN', `plugin storage/${scheme} was not found`, { detail: { path }, hint: 'use a local path' })
}

/** Who makes a checkpoint: stands in the partial name, so that another process can tell what a crash has left. */
export interface Maker {
  readonly pid: number
  readonly startTicks: string
  readonly bootId: string
}

/** With the suffix of the archive, where there is one. */
const PARTIAL = /^\..+\.partial-([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-z]+(\.tar(\.[0-9a-z]+)?)?$/
const bootKey = (bootId: string): string => bootId.slice(0, 8)

/** Name of the unfinished checkpoint `name`, in the same directory: hidden, and never valid as a checkpoint's own name. */
export const partialName = (name: string, maker: Maker, random: string): string =>
  `.${name}.partial-${bootKey(maker.bootId)}-${maker.pid}-${maker.startTicks}-${random}`

export interface Partial {
  readonly pid: number
  readonly startTicks: string
  readonly isThisBoot: boolean
}

/** Whose partial this directory entry is; undefined when it is no partial. */
export function parsePartial(entry: string, bootId: string): Partial | undefined {
  const [, boot, pid, startTicks] = PARTIAL.exec(entry) ?? []
  if (boot === undefined || pid === undefined || startTicks === undefined) return undefined
  return { pid: Number(pid), startTicks, isThisBoot: boot === bootKey(bootId) }
}

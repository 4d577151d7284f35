/**
 * CRIU's image files: a magic, then records of a 32-bit length and a protobuf message. Field numbers are facts of that format; only those that
 * are shown to people stand here, everything else is skipped, so newer images read as well.
 */
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire'
import { CedanaError } from '../../plugins/contract/errors.js'

interface Field<T> {
  readonly number: number
  readonly initial: () => T
  /** A method, not a property: so that a Field<number> is a Field<unknown>. */
  read(reader: BinaryReader, wire: WireType, before: T): T
}
export type Shape = Readonly<Record<string, Field<unknown>>>
export type Decoded<S extends Shape> = { readonly [K in keyof S]: S[K] extends Field<infer T> ? T : never }

/** Any integer of the wire. Beyond 2^53 (addresses of the kernel's half) the last bits are lost, which nothing here minds. */
function integer(reader: BinaryReader, wire: WireType): number {
  if (wire === WireType.Bit32) return reader.fixed32()
  return Number(wire === WireType.Bit64 ? reader.fixed64() : reader.uint64())
}

const uint = (number: number): Field<number> => ({ number, initial: () => 0, read: integer })
const maybe = (number: number): Field<number | undefined> => ({ number, initial: () => undefined, read: integer })
const text = (number: number): Field<string> => ({
  number,
  initial: () => '',
  read: (reader) => Buffer.from(reader.bytes()).toString('utf8'),
})
const uints = (number: number): Field<readonly number[]> => ({
  number,
  initial: () => [],
  read: (reader, wire, before) => {
    if (wire !== WireType.LengthDelimited) return [...before, integer(reader, wire)]
    const packed = new BinaryReader(reader.bytes())
    const values = [...before]
    while (packed.pos < packed.len) values.push(integer(packed, WireType.Varint))
    return values
  },
})
const message = <S extends Shape>(number: number, shape: S): Field<Decoded<S> | undefined> => ({
  number,
  initial: () => undefined,
  read: (reader) => decode(shape, reader.bytes()),
})
const messages = <S extends Shape>(number: number, shape: S): Field<readonly Decoded<S>[]> => ({
  number,
  initial: () => [],
  read: (reader, _, before) => {
    // Appended in place: a process may have a hundred thousand memory areas. `initial` made this array for this record.
    ;(before as Decoded<S>[]).push(decode(shape, reader.bytes()))
    return before
  },
})

type ByNumber = ReadonlyMap<number, { readonly name: string; readonly field: Field<unknown> }>
const tables = new WeakMap<Shape, ByNumber>()

function tableOf(shape: Shape): ByNumber {
  const known = tables.get(shape)
  if (known) return known
  const table = new Map(Object.entries(shape).map(([name, field]) => [field.number, { name, field }]))
  tables.set(shape, table)
  return table
}

function decode<S extends Shape>(shape: S, bytes: Uint8Array): Decoded<S> {
  const byNumber = tableOf(shape)
  const values: Record<string, unknown> = Object.fromEntries(Object.entries(shape).map(([name, field]) => [name, field.initial()]))
  const reader = new BinaryReader(bytes)
  while (reader.pos < reader.len) {
    const [number, wire] = reader.tag()
    const known = byNumber.get(number)
    if (known) values[known.name] = known.field.read(reader, wire, values[known.name])
    else reader.skip(wire, number)
  }
  return values as Decoded<S>
}

export interface ImageKind<S extends Shape> {
  readonly magic: number
  readonly shape: S
  /** The first record is of another shape and not of interest. */
  readonly skipHead?: true
}

const FLAGS = { flags: uint(2) }
const NUMBERED = { id: uint(1) }

export const PSTREE = {
  magic: 0x50273030,
  shape: { pid: uint(1), parent: uint(2), group: uint(3), session: uint(4), threads: uints(5) },
} as const
const CREDENTIALS = {
  uid: uint(1),
  gid: uint(2),
  euid: uint(3),
  egid: uint(4),
  suid: uint(5),
  sgid: uint(6),
  fsuid: uint(7),
  fsgid: uint(8),
  groups: uints(14),
}
export const CORE = {
  magic: 0x55053847,
  shape: {
    task: message(3, { state: uint(1), name: text(6) }),
    thread: message(5, { credentials: message(10, CREDENTIALS) }),
  },
} as const
export const IDS = { magic: 0x54432030, shape: { files: uint(2) } } as const
export const FS = { magic: 0x51403912, shape: { workingDirectory: uint(1), root: uint(2) } } as const
export const MM = {
  magic: 0x57492820,
  shape: {
    stack: uint(5),
    executable: uint(12),
    areas: messages(14, { start: uint(1), end: uint(2), shared: uint(4), protection: uint(5), flags: uint(6), status: uint(7) }),
  },
} as const
export const PAGEMAP = {
  magic: 0x56084025,
  skipHead: true,
  shape: { address: uint(1), pagesThen: uint(2), inParent: uint(3), flags: maybe(4), pages: uint(5) },
} as const
export const FDINFO = { magic: 0x56213732, shape: { id: uint(1), flags: uint(2), type: uint(3), fd: uint(4) } } as const
export const FILES = {
  magic: 0x56303138,
  shape: {
    type: uint(1),
    id: uint(2),
    regular: message(3, { flags: uint(2), position: uint(3), path: text(6), size: maybe(8), isExternal: uint(9), mode: maybe(10) }),
    inet: message(4, {
      inode: uint(2),
      family: uint(3),
      type: uint(4),
      protocol: uint(5),
      state: uint(6),
      localPort: uint(7),
      remotePort: uint(8),
      flags: uint(9),
      local: uints(11),
      remote: uints(12),
      options: message(14, { reuseAddress: uint(7), reusePort: uint(17) }),
    }),
    eventfd: message(8, FLAGS),
    unix: message(16, { inode: uint(2), type: uint(3), state: uint(4), flags: uint(5), peer: uint(8), name: text(11) }),
    fifo: message(17, { pipe: uint(2), flags: uint(3) }),
    pipe: message(18, { pipe: uint(2), flags: uint(3) }),
    tty: message(19, { info: uint(2), flags: uint(3) }),
    memfd: message(20, { flags: uint(2), position: uint(3), inode: uint(5) }),
  },
} as const
export const MEMFD = { magic: 0x48453499, shape: { name: text(1), size: uint(4), id: uint(7) } } as const
/** File entries whose name is gone: restored from a ghost or through a link. */
export const REMAP = { magic: 0x59133954, shape: NUMBERED } as const

/** `stats-dump` and `stats-restore`, with the names of CRIU; times in microseconds. */
export const STATS = {
  magic: 0x57093306,
  shape: {
    dump: message(1, {
      freezing_time: maybe(1),
      frozen_time: maybe(2),
      memdump_time: maybe(3),
      memwrite_time: maybe(4),
      pages_scanned: maybe(5),
      pages_skipped_parent: maybe(6),
      pages_written: maybe(7),
    }),
    restore: message(2, {
      pages_compared: maybe(1),
      pages_skipped_cow: maybe(2),
      forking_time: maybe(3),
      restore_time: maybe(4),
      pages_restored: maybe(5),
    }),
  },
} as const

const COMMON_MAGIC = 0x54564319
const SERVICE_MAGIC = 0x55105940

/** The records of an image file. Throws IMAGE_CORRUPT when it is no image of that kind, or ends in the middle of a record. */
export function readImage<S extends Shape>(kind: ImageKind<S>, name: string, bytes: Uint8Array): readonly Decoded<S>[] {
  const corrupt = (why: string, cause?: unknown): CedanaError =>
    new CedanaError('IMAGE_CORRUPT', `${name} is damaged: ${why}`, { cause, detail: { files: [name] } })
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (view.byteLength < 4) throw corrupt('it is empty')
  const first = view.getUint32(0, true)
  const hasCommonMagic = first === COMMON_MAGIC || first === SERVICE_MAGIC
  if (hasCommonMagic && view.byteLength < 8) throw corrupt('it is cut off')
  if ((hasCommonMagic ? view.getUint32(4, true) : first) !== kind.magic) throw corrupt('it is an image of another kind')
  const records: Decoded<S>[] = []
  let skip = kind.skipHead === true
  for (let at = hasCommonMagic ? 8 : 4; at < view.byteLength;) {
    const end = at + 4 <= view.byteLength ? at + 4 + view.getUint32(at, true) : Infinity
    if (end > view.byteLength) throw corrupt('it is cut off')
    try {
      if (!skip) records.push(decode(kind.shape, bytes.subarray(at + 4, end)))
    } catch (cause) {
      throw corrupt('a record cannot be read', cause)
    }
    skip = false
    at = end
  }
  return records
}

/** The memory of a process, or what several share. */
export const isPages = (name: string): boolean => /^pages-\d+\.img$/.test(name)

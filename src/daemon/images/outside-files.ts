/**
 * Files of the outside in CRIU's `files.img`: CRIU wants a restored descriptor to be of a file as long as it was at the dump. Of a file that the
 * container shares with others (its output, `file[MOUNT:INODE]`) nobody can promise that.
 */
import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire'

export const FILES = 'files.img'
/** Two magic numbers. */
const HEADER_BYTES = 8
/** file_entry.reg; reg_file_entry.size and .ext, as of CRIU 3 and 4. */
const REG = 3
const SIZE = 8
const EXT = 9

interface Field {
  readonly number: number
  readonly wire: WireType
  /** With its tag. */
  readonly bytes: Uint8Array
}

function fieldsOf(message: Uint8Array): Field[] {
  const reader = new BinaryReader(message)
  const fields: Field[] = []
  while (reader.pos < reader.len) {
    const start = reader.pos
    const [number, wire] = reader.tag()
    reader.skip(wire, number)
    fields.push({ number, wire, bytes: message.subarray(start, reader.pos) })
  }
  return fields
}

function valueOf({ bytes }: Field): Uint8Array {
  const reader = new BinaryReader(bytes)
  reader.tag()
  return reader.bytes()
}

const isTrue = ({ bytes }: Field): boolean => bytes.at(-1) === 1

function withoutSize(entry: Uint8Array): Uint8Array {
  const parts = fieldsOf(entry).map((field): Uint8Array => {
    if (field.number !== REG || field.wire !== WireType.LengthDelimited) return field.bytes
    const fields = fieldsOf(valueOf(field))
    if (!fields.some((one) => one.number === EXT && isTrue(one))) return field.bytes
    const kept = fields.filter(({ number }) => number !== SIZE).map(({ bytes }) => bytes)
    return new BinaryWriter().tag(REG, WireType.LengthDelimited).bytes(Buffer.concat(kept)).finish()
  })
  return Buffer.concat(parts)
}

/** The same image, without the sizes of files of the outside. */
export function forgetOutsideSizes(image: Uint8Array): Uint8Array {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength)
  const parts: Uint8Array[] = [image.subarray(0, HEADER_BYTES)]
  for (let at = HEADER_BYTES; at + 4 <= image.byteLength;) {
    const size = view.getUint32(at, true)
    const entry = withoutSize(image.subarray(at + 4, at + 4 + size))
    const length = Buffer.alloc(4)
    length.writeUInt32LE(entry.byteLength)
    parts.push(length, entry)
    at += 4 + size
  }
  return Buffer.concat(parts)
}

import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire'
import { expect, test } from 'vitest'
import { forgetOutsideSizes } from './outside-files.js'

const MAGIC = Buffer.from('19435654303f1256', 'hex')

/** A file_entry with a reg_file_entry of that name. */
function entry(id: number, { size, ext }: { size?: number; ext: boolean }): Buffer {
  const reg = new BinaryWriter().tag(1, WireType.Varint).uint32(id).tag(6, WireType.LengthDelimited).string(`/file-${id}`)
  if (size !== undefined) reg.tag(8, WireType.Varint).uint64(size)
  if (ext) reg.tag(9, WireType.Varint).bool(true)
  reg.tag(10, WireType.Varint).uint32(0o100644)
  const message = new BinaryWriter()
    .tag(1, WireType.Varint)
    .uint32(1)
    .tag(2, WireType.Varint)
    .uint32(id)
    .tag(3, WireType.LengthDelimited)
    .bytes(reg.finish())
    .finish()
  const length = Buffer.alloc(4)
  length.writeUInt32LE(message.byteLength)
  return Buffer.concat([length, message])
}

test('only files of the outside lose their size', () => {
  const inside = entry(1, { size: 300, ext: false })
  const image = Buffer.concat([MAGIC, inside, entry(2, { size: 1_000_000, ext: true }), entry(3, { ext: true })])
  const expected = Buffer.concat([MAGIC, inside, entry(2, { ext: true }), entry(3, { ext: true })])
  expect(Buffer.from(forgetOutsideSizes(image))).toEqual(expected)
  expect(Buffer.from(forgetOutsideSizes(expected))).toEqual(expected)
})

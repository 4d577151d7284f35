import { expect, test } from 'vitest'
import { DetachKeys, parseDetachKeys } from './detach-keys.js'

const keys = parseDetachKeys('ctrl-p,ctrl-q')!
const bytes = (...values: number[]) => Uint8Array.from(values)

test('names of keys', () => {
  expect(keys).toEqual([16, 17])
  expect(parseDetachKeys('ctrl-a,x')).toEqual([1, 120])
  expect(parseDetachKeys('')).toEqual([])
  expect(parseDetachKeys('ctrl-ü')).toBeUndefined()
})

test('what comes before the sequence still passes', () => {
  expect(new DetachKeys(keys).feed(bytes(97, 16, 17, 98))).toEqual({ pass: bytes(97), isDetach: true })
})

test('the sequence may come in pieces, and its beginning is held back', () => {
  const detach = new DetachKeys(keys)
  expect(detach.feed(bytes(16))).toEqual({ pass: bytes(), isDetach: false })
  expect(detach.feed(bytes(17))).toEqual({ pass: bytes(), isDetach: true })
})

test('a beginning that goes on otherwise passes, in order', () => {
  const detach = new DetachKeys(keys)
  expect(detach.feed(bytes(16, 97))).toEqual({ pass: bytes(16, 97), isDetach: false })
  expect(detach.feed(bytes(16, 16, 17))).toEqual({ pass: bytes(16), isDetach: true })
})

test('without keys everything passes', () => {
  expect(new DetachKeys([]).feed(bytes(16, 17))).toEqual({ pass: bytes(16, 17), isDetach: false })
})

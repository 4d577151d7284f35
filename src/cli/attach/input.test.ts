import { PassThrough } from 'node:stream'
import { expect, test } from 'vitest'
import { InputSource } from './input.js'

const make = (filter?: (bytes: Uint8Array) => Uint8Array) => {
  const stdin = new PassThrough()
  return { stdin, source: new InputSource(stdin as unknown as NodeJS.ReadStream, filter) }
}
const text = (result: IteratorResult<unknown>) => Buffer.from((result.value as { bytes: Uint8Array }).bytes).toString()

test('bytes, the window, the end', async () => {
  const { stdin, source } = make()
  stdin.write('hello')
  expect(text(await source.next())).toBe('hello')
  source.resize({ rows: 1, columns: 2 })
  expect((await source.next()).value).toEqual({ kind: 'window', size: { rows: 1, columns: 2 } })
  stdin.end()
  expect((await source.next()).value).toEqual({ kind: 'eof' })
})

test('nothing is read that is not asked for', async () => {
  const { stdin, source } = make()
  stdin.write('a')
  expect(stdin.isPaused()).toBe(true)
  expect(text(await source.next())).toBe('a')
  expect(stdin.isPaused()).toBe(true)
})

test('what the filter keeps back is not sent', async () => {
  const { stdin, source } = make((bytes) => (bytes[0] === 16 ? new Uint8Array() : bytes))
  const next = source.next()
  stdin.write(Buffer.from([16]))
  await new Promise(setImmediate)
  stdin.write('x')
  expect(text(await next)).toBe('x')
})

test('closing ends a wait', async () => {
  const { source } = make()
  const next = source.next()
  source.close()
  expect(await next).toEqual({ value: undefined, done: true })
  expect((await source.next()).done).toBe(true)
})

import { appendFile, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { showLog, type LogFlags } from './log-file.js'

let directory = ''
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'log-file-'))
})
afterAll(() => rm(directory, { recursive: true }))

function sink() {
  const stdout = new PassThrough()
  const chunks: Buffer[] = []
  stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
  return { stdout: stdout as unknown as NodeJS.WriteStream, text: () => Buffer.concat(chunks).toString() }
}
async function show(content: string, flags: LogFlags): Promise<string> {
  const path = join(directory, 'x.log')
  await writeFile(path, content)
  const { stdout, text } = sink()
  await showLog({ stdout, signal: new AbortController().signal }, path, flags)
  return text()
}

test('the whole log', async () => {
  expect(await show('a\nb\n', {})).toBe('a\nb\n')
})

test.each([
  ['a\nb\nc\n', 2, 'b\nc\n'],
  ['a\nb\nc', 2, 'b\nc'],
  ['a\nb\n', 9, 'a\nb\n'],
  ['', 3, ''],
  [`${'x'.repeat(70_000)}\ny\n`, 1, 'y\n'],
])('its last lines', async (content, tail, expected) => {
  expect(await show(content, { tail })).toBe(expected)
})

test('as it grows, until told to stop', async () => {
  const path = join(directory, 'growing.log')
  await writeFile(path, 'one\n')
  const { stdout, text } = sink()
  const stop = new AbortController()
  const shown = showLog({ stdout, signal: stop.signal }, path, { follow: true })
  await expect.poll(text).toBe('one\n')
  await appendFile(path, 'two\n')
  await expect.poll(text).toBe('one\ntwo\n')
  stop.abort()
  await shown
})

test('a log that cannot be read', async () => {
  const { stdout } = sink()
  await expect(showLog({ stdout, signal: new AbortController().signal }, join(directory, 'none'), {})).rejects.toThrow(
    /cannot read the log .*none: no such file or directory/,
  )
})

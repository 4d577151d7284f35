/** What only a server that misbehaves, or is not there, shows; the rest is in daemon/api/server.test.ts, against the real one. */
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer as createHttp1 } from 'node:http'
import { createServer, type Http2Server, type ServerHttp2Stream } from 'node:http2'
import type { AddressInfo, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { CallFailed, Channel, STATUS } from './grpc.js'

const MAX = 2 ** 20
let directory: string
let path: string
const open: { close(): unknown }[] = []

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'grpc-'))
  path = join(directory, 's')
})
afterEach(() => {
  for (const one of open.splice(0)) one.close()
  rmSync(directory, { recursive: true })
})

async function listen(answer: (stream: ServerHttp2Stream) => void): Promise<Http2Server> {
  const server = createServer()
  server.on('stream', (stream) => {
    stream.on('error', () => {})
    answer(stream)
  })
  await new Promise<void>((resolve) => server.listen(path, resolve))
  open.push(server)
  return server
}
function channel(waitForReady = false): Channel {
  const made = new Channel({ path }, { maxMessageBytes: MAX, waitForReady })
  open.push(made)
  return made
}
async function ask(on: Channel, limitMs = 0, signal?: AbortSignal): Promise<string[]> {
  const call = await on.open('/x/Y', { limitMs, signal })
  call.finish(Buffer.from('question'))
  const messages: string[] = []
  for await (const message of call.messages()) messages.push(message.toString())
  return messages
}
const failed = (status: number): unknown => expect.objectContaining({ status }) as unknown

const frame = (text: string, flag = 0): Buffer => Buffer.concat([Buffer.from([flag, 0, 0, 0, text.length]), Buffer.from(text)])
/** Sends the pieces one by one. */
async function reply(
  stream: ServerHttp2Stream,
  pieces: readonly Buffer[],
  trailers: Record<string, string> = { 'grpc-status': '0' },
): Promise<void> {
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true })
  stream.on('wantTrailers', () => stream.sendTrailers(trailers))
  for (const piece of pieces) {
    stream.write(piece)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  stream.end()
}

describe('messages', () => {
  it('are put together from whatever pieces arrive', async () => {
    const all = Buffer.concat([frame('one'), frame(''), frame('three')])
    for (const size of [1, 4, 7, 100]) {
      const pieces = Array.from({ length: Math.ceil(all.length / size) }, (_, n) => all.subarray(n * size, (n + 1) * size))
      const server = await listen((stream) => void reply(stream, pieces))
      expect(await ask(channel())).toEqual(['one', '', 'three'])
      server.close()
      open.splice(0).forEach((one) => one.close())
    }
  })

  it('come before the failure that follows them', async () => {
    await listen((stream) => void reply(stream, [frame('a')], { 'grpc-status': '5', 'grpc-message': 'no %C3%BC' }))
    const call = await channel().open('/x/Y', { limitMs: 0, signal: undefined })
    const messages = call.messages()
    call.finish(Buffer.alloc(0))
    expect((await messages.next()).value).toEqual(Buffer.from('a'))
    await expect(messages.next()).rejects.toMatchObject({ status: STATUS.NOT_FOUND, details: 'no ü' })
  })

  it('are refused when they are compressed or too large', async () => {
    await listen((stream) => void reply(stream, [frame('x', 1)]))
    await expect(ask(channel())).rejects.toEqual(failed(STATUS.INTERNAL))
    open.splice(0).forEach((one) => one.close())
    path += '2'
    await listen((stream) => void reply(stream, [Buffer.from([0, 0xff, 0, 0, 0])]))
    await expect(ask(channel())).rejects.toEqual(failed(STATUS.RESOURCE_EXHAUSTED))
  })
})

describe('a daemon', () => {
  it('that dies in the middle was unreachable', async () => {
    const server = await listen((stream) => {
      stream.respond({ ':status': 200 })
      stream.write(frame('a'), () => socket?.destroy())
    })
    let socket: Socket | undefined
    server.on('connection', (one: Socket) => (socket = one))
    await expect(ask(channel())).rejects.toEqual(failed(STATUS.UNAVAILABLE))
  })

  it('that is there again is talked to again', async () => {
    const first = await listen((stream) => stream.session?.destroy())
    const on = channel()
    await expect(ask(on)).rejects.toBeInstanceOf(CallFailed)
    await new Promise((resolve) => first.close(resolve))
    await listen((stream) => void reply(stream, [frame('back')]))
    expect(await ask(on)).toEqual(['back'])
  })

  it('that does not answer is given up after the limit', async () => {
    await listen(() => {})
    await expect(ask(channel(), 50)).rejects.toEqual(failed(STATUS.DEADLINE_EXCEEDED))
  })

  it('that is not up yet is waited for, as long as the call may take', async () => {
    await expect(ask(channel())).rejects.toMatchObject({ status: STATUS.UNAVAILABLE, details: expect.stringContaining('ENOENT') as string })
    await expect(ask(channel(true), 250)).rejects.toEqual(failed(STATUS.DEADLINE_EXCEEDED))
    await expect(ask(channel(true), 0, AbortSignal.timeout(50))).rejects.toEqual(failed(STATUS.CANCELLED))
    const answer = ask(channel(true), 5000)
    await new Promise((resolve) => setTimeout(resolve, 150))
    await listen((stream) => void reply(stream, [frame('up')]))
    expect(await answer).toEqual(['up'])
  })

  it('that speaks something else is no daemon', async () => {
    await listen((stream) => stream.respond({ ':status': 404 }, { endStream: true }))
    await expect(ask(channel())).rejects.toMatchObject({ status: STATUS.UNAVAILABLE, details: expect.stringContaining('404') as string })
    const http1 = createHttp1((_request, response) => response.end('hello'))
    await new Promise<void>((resolve) => http1.listen(0, '127.0.0.1', resolve))
    open.push(http1)
    const { port } = http1.address() as AddressInfo
    const other = new Channel({ host: '127.0.0.1', port }, { maxMessageBytes: MAX })
    open.push(other)
    await expect(ask(other)).rejects.toEqual(failed(STATUS.UNAVAILABLE))
  })
})

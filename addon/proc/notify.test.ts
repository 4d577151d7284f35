import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { native } from '../index.js'

const dir = mkdtempSync(join(tmpdir(), 'cedana-notify-'))
afterAll(() => rmSync(dir, { recursive: true }))

/** Node has no datagram sockets of the unix family. */
const RECEIVER = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1].replace('@', chr(0)))
print('ready\\n', end='', flush=True)
print(s.recv(4096).decode(), end='', flush=True)
`

describe('sdNotify', () => {
  it.skipIf(spawnSync('python3', ['-V']).status !== 0).each([join(dir, 'socket'), `@cedana-notify-${process.pid}`])(
    'sends one datagram to %s (needs python3)',
    async (path) => {
      const receiver = spawn('python3', ['-c', RECEIVER, path], { stdio: ['ignore', 'pipe', 'inherit'] })
      await once(receiver.stdout, 'data')
      native.sdNotify(path, 'READY=1\nSTATUS=ok')
      const [message] = (await once(receiver.stdout, 'data')) as [Buffer]
      expect(message.toString()).toBe('READY=1\nSTATUS=ok')
    },
  )

  it('throws when nobody listens', () => {
    expect(() => native.sdNotify(join(dir, 'absent'), 'READY=1')).toThrow(expect.objectContaining({ op: 'sdNotify', code: 'ENOENT' }))
    expect(() => native.sdNotify('/' + 'x'.repeat(108), 'READY=1')).toThrow(expect.objectContaining({ code: 'ENAMETOOLONG' }))
  })
})

it('syncs a file system', async () => {
  const fd = openSync(dir, 'r')
  await native.syncFilesystem(fd)
  closeSync(fd)
  await expect(native.syncFilesystem(fd)).rejects.toMatchObject({ op: 'syncfs', code: 'EBADF' })
})

it('renames, but never over something', async () => {
  const fd = openSync(dir, 'r')
  writeFileSync(join(dir, 'a'), 'a')
  await native.renameNoReplace(fd, 'a', fd, 'b')
  expect(readFileSync(join(dir, 'b'), 'utf8')).toBe('a')
  writeFileSync(join(dir, 'a'), 'new')
  await expect(native.renameNoReplace(fd, 'a', fd, 'b')).rejects.toMatchObject({ code: 'EEXIST', op: 'rename a to b' })
  expect(readFileSync(join(dir, 'b'), 'utf8')).toBe('a')
  closeSync(fd)
})

import { closeSync, openSync, readSync } from 'node:fs'
import { expect, it } from 'vitest'
import { until } from '../../test/support/wait.js'
import { native } from '../index.js'

const PATH = ['PATH=/usr/bin:/bin']

/** What a shell script writes to its descriptor 7. */
async function output(script: string, environment = PATH): Promise<string> {
  const { readFd, writeFd } = native.pipe()
  const { child } = native.spawn(['/bin/sh', '-c', script], environment, [-1, -1, -1, -1, -1, -1, -1, writeFd], true)
  closeSync(writeFd)
  await native.pidfdWait(child)
  const buffer = Buffer.alloc(4096)
  const size = readSync(readFd, buffer)
  closeSync(readFd)
  return buffer.toString('utf8', 0, size)
}

it('gives a child its descriptors, no others, and its environment', async () => {
  const script = 'for fd in 0 3 4 5 6; do readlink /proc/$$/fd/$fd >&7 || echo none >&7; done; echo $A >&7'
  expect(await output(script, [...PATH, 'A=one two'])).toBe('/dev/null\nnone\nnone\nnone\nnone\none two\n')
})

it('does not overwrite a descriptor before its turn', async () => {
  const first = openSync('/dev/zero', 'r')
  const second = openSync('/dev/full', 'r')
  const { readFd, writeFd } = native.pipe()
  const descriptors = Array.from({ length: Math.max(first, second, writeFd) + 1 }, () => -1)
  ;[descriptors[first], descriptors[second], descriptors[1]] = [second, first, writeFd]
  const script = `readlink /proc/$$/fd/${first} /proc/$$/fd/${second}`
  const { child } = native.spawn(['/bin/sh', '-c', script], PATH, descriptors, false)
  closeSync(writeFd)
  await native.pidfdWait(child)
  const buffer = Buffer.alloc(100)
  expect(buffer.toString('utf8', 0, readSync(readFd, buffer))).toBe('/dev/full\n/dev/zero\n')
  for (const fd of [first, second, readFd]) closeSync(fd)
})

it('makes a session, and takes back what Node did to signals', async () => {
  expect(await output('test $(ps -o sid= -p $$) -eq $$ && grep -E "^Sig(Blk|Ign|Cgt)" /proc/self/status >&7')).toMatch(
    /^SigBlk:\s0+\nSigIgn:\s0+\nSigCgt:/,
  )
})

it('tells the end of a child, and leaves no zombie', async () => {
  const { child, ended } = native.spawn(['/bin/sh', '-c', 'exit 42'], PATH, [-1, -1, -1], false)
  await native.pidfdWait(child)
  expect(await ended).toEqual({ code: 42, signal: null })
  expect(native.pidfdSend(child, 0)).toBe(false)
  await until('no zombie is left', async () =>
    (await native.scanStats()).every(({ parentPid, state }) => parentPid !== process.pid || state !== 'Z'),
  )
})

it('says what cannot be run', () => {
  expect(() => native.spawn(['/nowhere', 'x'], [], [], false)).toThrow(
    expect.objectContaining({ code: 'ENOENT', op: 'spawn /nowhere' }) as Error,
  )
})

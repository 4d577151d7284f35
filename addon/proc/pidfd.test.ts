import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Readable, Writable } from 'node:stream'
import { afterEach, expect, it } from 'vitest'
import { native, NativeError } from '../index.js'

const children: ChildProcessByStdio<Writable, Readable, null>[] = []

function shell(script: string) {
  const child = spawn('sh', ['-c', script], { stdio: ['pipe', 'pipe', 'inherit'] })
  children.push(child)
  return child
}

/** Starts `script`, which prints the PID of a process that is not our child. */
async function grandchild(script: string): Promise<number> {
  const [printed] = (await once(shell(script).stdout, 'data')) as [Buffer]
  return Number(printed.toString())
}

afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL')
      await once(child, 'exit')
    }
  }
})

it('tells the exit code of a child, which libuv reaps', async () => {
  const child = shell('read line; exit 42')
  const handle = native.pidfdOpen(child.pid ?? 0)
  expect(native.pidfdSend(handle, 0)).toBe(true)
  const exit = native.pidfdWait(handle)
  child.stdin.write('go\n')
  expect(await exit).toEqual({ code: 42, signal: null })
  expect(native.pidfdSend(handle, 0)).toBe(false)
  native.pidfdClose(handle)
})

it('tells the signal that ended a process of another parent', async () => {
  const handle = native.pidfdOpen(await grandchild('sleep 100 & echo $!; wait'))
  const exit = native.pidfdWait(handle)
  expect(native.pidfdSend(handle, 15)).toBe(true)
  expect(await exit).toEqual({ code: null, signal: 15 })
  // Again, and late: the answer is the same.
  expect(await native.pidfdWait(handle)).toEqual({ code: null, signal: 15 })
  native.pidfdClose(handle)
})

it('does not wait for a parent that never reaps', async () => {
  const handle = native.pidfdOpen(await grandchild('exec 3<&0; (read line; exit 7) <&3 & echo $!; exec sleep 100'))
  const exit = native.pidfdWait(handle)
  children[0]?.stdin.write('go\n')
  const written = performance.now()
  expect(await exit).toEqual({ code: 7, signal: null })
  expect(performance.now() - written).toBeLessThan(30_000) // its parent sleeps for 100 s
  expect(native.pidfdSend(handle, 0)).toBe(false)
  native.pidfdClose(handle)
})

it('serves many waits at once', async () => {
  const parent = shell('exec 3<&0; for i in 1 2 3 4 5 6 7 8 9 10; do (read line; exit $i) <&3 & echo $!; done; wait')
  let printed = ''
  for await (const chunk of parent.stdout) {
    printed += String(chunk)
    if (printed.split('\n').length > 10) break
  }
  const handles = printed
    .trim()
    .split('\n')
    .map((pid) => native.pidfdOpen(Number(pid)))
  const exits = handles.flatMap((handle) => [native.pidfdWait(handle), native.pidfdWait(handle)])
  parent.stdin.end()
  const codes = (await Promise.all(exits)).map((exit) => exit.code)
  expect(codes).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10].flatMap((code) => [code, code]))
})

it('ends a wait when the handle is closed', async () => {
  const child = shell('read line')
  const handle = native.pidfdOpen(child.pid ?? 0)
  const exit = native.pidfdWait(handle)
  native.pidfdClose(handle)
  await expect(exit).rejects.toMatchObject({ code: 'ECANCELED' })
  await expect(native.pidfdWait(handle)).rejects.toMatchObject({ code: 'EBADF' })
  expect(() => native.pidfdSend(handle, 0)).toThrow(expect.objectContaining({ code: 'EBADF' }))
})

it('names the call that failed', () => {
  const open = () => native.pidfdOpen(2 ** 22 + 1)
  expect(open).toThrow(NativeError)
  expect(open).toThrow(expect.objectContaining({ op: 'pidfd_open', code: 'ESRCH', errno: 3 }))
})

import { expect, test } from 'vitest'
import { CedanaError } from '../../plugins/contract/errors.js'
import { type Callable, Peer, Scope } from './peer.js'

/** Two of them, with a channel between that copies what passes, one message after the other. */
function pair(root: Callable): { readonly here: Peer; readonly there: Peer } {
  const deliver =
    (to: () => Peer) =>
    (message: unknown): void => {
      const copy: unknown = structuredClone(message)
      setImmediate(() => to().receive(copy))
    }
  const here: Peer = new Peer(
    deliver(() => there),
    () => undefined,
  )
  const there: Peer = new Peer(
    deliver(() => here),
    root,
  )
  return { here, there }
}

test('plain data passes as it is', async () => {
  const { here } = pair((value) => value)
  const data = { bytes: new Uint8Array([1, 2]), map: new Map([['a', 1]]), none: undefined, list: [null, 1n, { deep: 'x' }] }
  expect(await here.call([data])).toEqual(data)
})

test('functions call back, with what they are given, and know their own', async () => {
  const mine = (add: number): number => 40 + add
  const { here } = pair(async (given, isMine) => {
    expect(await (isMine as Callable)(given)).toBe(true)
    return { sum: await (given as Callable)(2), undo: () => 'undone' }
  })
  const got = (await here.call([mine, (same: unknown) => same === mine])) as { sum: number; undo: Callable }
  expect(got.sum).toBe(42)
  expect(await got.undo()).toBe('undone')
  expect(here.held).toBe(1)
})

test('a function that was given for a call is not there after it', async () => {
  let kept: Callable | undefined
  const { here } = pair((given) => void (kept = given as Callable))
  await here.call([() => 'here'])
  await expect(kept?.()).rejects.toMatchObject({ code: 'CANCELLED' })
  const scope = new Scope()
  await here.call([() => 'here'], scope)
  expect(await kept?.()).toBe('here')
  scope[Symbol.dispose]()
  await expect(kept?.()).rejects.toMatchObject({ code: 'CANCELLED' })
})

test('errors keep their code, hint, detail, causes and what followed', async () => {
  const error = new CedanaError('TARGET_UNFIT', 'no', { hint: 'do', detail: { pid: 1, f: () => 1 }, cause: new TypeError('why') })
  error.suppressed.push(new CedanaError('NO_SPACE', 'full'))
  const { here } = pair(() => Promise.reject(error))
  const thrown = await here.call([]).catch((one: unknown) => one)
  expect(thrown).toBeInstanceOf(CedanaError)
  expect(thrown).toMatchObject({ code: 'TARGET_UNFIT', message: 'no', hint: 'do', detail: { pid: 1 }, stack: error.stack })
  expect(thrown).toMatchObject({ cause: { name: 'TypeError', message: 'why' }, suppressed: [{ code: 'NO_SPACE', message: 'full' }] })
})

test('an error of another copy of the contract is taken for one of ours', async () => {
  const alike = Object.assign(new Error('gone'), { name: 'CedanaError', code: 'NO_SUCH_CONTAINER', detail: { id: 'a' }, hint: 'look' })
  const { here } = pair(() => Promise.reject(alike))
  await expect(here.call([])).rejects.toMatchObject({ code: 'NO_SUCH_CONTAINER', detail: { id: 'a' }, hint: 'look' })
})

test('what cannot be handed over is an error of the one who does it', async () => {
  const { here } = pair(() => Symbol('x'))
  await expect(here.call([])).rejects.toThrow('could not be cloned')
  await expect(here.call([Symbol('x')])).rejects.toThrow('could not be cloned')
})

test('a signal is aborted on the other side, with its reason', async () => {
  const { here } = pair((signal) => {
    const given = signal as AbortSignal
    return new Promise((_, reject) => given.addEventListener('abort', () => reject(given.reason as Error)))
  })
  const cancel = new AbortController()
  const waiting = here.call([cancel.signal])
  setImmediate(() => cancel.abort(new CedanaError('TIMEOUT', 'late')))
  await expect(waiting).rejects.toMatchObject({ code: 'TIMEOUT', message: 'late' })
})

test('closed, whatever is under way fails', async () => {
  const { here } = pair(() => new Promise(() => undefined))
  const waiting = here.call([])
  here.close(new Error('gone'))
  await expect(waiting).rejects.toThrow('gone')
  await expect(here.call([])).rejects.toThrow('gone')
})

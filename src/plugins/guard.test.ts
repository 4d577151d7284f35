import { expect, test } from 'vitest'
import { CedanaError } from './contract/errors.js'
import type { Host } from './contract/host.js'
import type { DumpContext } from './contract/runtime.js'
import { guarded } from './guard.js'

const host = (signal = new AbortController().signal): Host => ({ signal }) as Host
const plan = { criu: {}, attachments: [], problems: [] }
const dump = (method: (host: Host) => unknown, limitMs = 1000, given = host()): Promise<unknown> =>
  guarded('alien', 'dump', method as never, limitMs)(given, {} as DumpContext, {})

test('gives on what is as it should be', async () => {
  expect(await dump(async () => plan)).toBe(plan)
})

test('a verb that does not end is given up, and told so', async () => {
  let told: Promise<unknown> | undefined
  const hang = ({ signal }: Host): Promise<never> => {
    told = new Promise((resolve) => signal.addEventListener('abort', resolve))
    return new Promise(() => undefined)
  }
  await expect(dump(hang, 20)).rejects.toMatchObject({ code: 'TIMEOUT', message: 'plugin alien did not finish dump within 0.02 s' })
  await told
})

test('a wait for a target is not bounded', async () => {
  const target = { pid: 1, startTicks: '1', bootId: 'b' }
  const wait = guarded('alien', 'upcoming', (() => new Promise((resolve) => setTimeout(resolve, 50, target))) as never, 10)
  expect(await wait(host(), {})).toBe(target)
})

test('a caller that goes away is not kept by it', async () => {
  const cancel = new AbortController()
  const waiting = dump(() => new Promise(() => undefined), 10_000, host(cancel.signal))
  cancel.abort()
  await expect(waiting).rejects.toThrow()
})

test('its mistakes carry its name, its refusals are its own', async () => {
  const fails = (thrown: Error) => dump(() => Promise.reject(thrown))
  await expect(fails(new TypeError('x is not a function'))).rejects.toMatchObject({
    code: 'PLUGIN_FAILED',
    message: 'plugin alien failed in dump: x is not a function',
  })
  await expect(dump(() => JSON.parse('{'))).rejects.toMatchObject({ code: 'PLUGIN_FAILED' })
  await expect(fails(new CedanaError('TARGET_UNFIT', 'no'))).rejects.toMatchObject({ code: 'TARGET_UNFIT', message: 'no' })
  // Of a plugin that brings a copy of the contract.
  const alike = Object.assign(new Error('gone'), { name: 'CedanaError', code: 'NO_SUCH_CONTAINER', detail: { id: 'a' }, hint: 'look' })
  await expect(fails(alike)).rejects.toMatchObject({ code: 'NO_SUCH_CONTAINER', detail: { id: 'a' }, hint: 'look' })
})

test.each([
  [undefined, ': '],
  [{ ...plan, problems: [{ severity: 'bad' }] }, ' at problems.0.severity'],
  [{ ...plan, attachments: [{ name: '../x', content: new Uint8Array() }] }, ' at attachments.0.name'],
])('a result that is none is refused: %j', async (result, at) => {
  await expect(dump(async () => result)).rejects.toThrow(`plugin alien gave a result of dump that is none${at}`)
})

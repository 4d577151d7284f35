import { describe, expect, it } from 'vitest'
import { fromWireOutput, fromWireRun, plain } from './codec.js'
import { RunRequest } from './gen/cedana.js'

describe('codec', () => {
  it('makes free-form objects plain', () => {
    const object = { a: undefined, b: 2n ** 60n, c: [undefined, { d: new Uint8Array([255]) }], e: null, f: () => 1 }
    expect(plain(object)).toEqual({ b: '1152921504606846976', c: [null, { d: '/w==' }], e: null })
  })

  it('lets nobody reach a prototype', () => {
    const made = plain(JSON.parse('{"__proto__": {"isRoot": true}}') as object)
    expect(Object.getPrototypeOf(made)).toBe(Object.prototype)
    expect((made as { isRoot?: boolean }).isRoot).toBeUndefined()
  })

  it('refuses a stdio mode that does not exist, and takes the log for none', () => {
    const request = RunRequest.decode(new Uint8Array())
    expect(fromWireRun(request)).toMatchObject({ stdio: 'log', options: {}, windowSize: undefined })
    expect(() => fromWireRun({ ...request, stdio: 9 as never })).toThrow(expect.objectContaining({ code: 'BAD_OPTIONS' }))
  })

  it('passes over what a newer daemon sends', () => {
    expect(fromWireOutput({ output: undefined })).toBeUndefined()
  })
})

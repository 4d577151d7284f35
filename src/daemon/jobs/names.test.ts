import { describe, expect, it } from 'vitest'
import { checkJobId, meantBy, randomJobId } from './names.js'

describe('job ids', () => {
  it('are an adjective, a surname and a digit', () => {
    const ids = Array.from({ length: 500 }, randomJobId)
    for (const id of ids) {
      expect(id).toMatch(/^[a-z]+_[a-z]+\d$/)
      expect(checkJobId(id)).toBe(id)
    }
    expect(new Set(ids).size).toBeGreaterThan(480)
  })

  it.each(['a', '0', 'A.b-c_9', 'x'.repeat(128)])('allow %s', (id) => expect(checkJobId(id)).toBe(id))
  it.each(['', '-a', '.', '../x', 'a/b', 'a b', 'ü', 'a\n', 'x'.repeat(129), '_x'])('refuse %j', (id) =>
    expect(() => checkJobId(id)).toThrow(expect.objectContaining({ code: 'BAD_OPTIONS' })),
  )
})

describe('the job that is meant', () => {
  const jids = ['brave_hopper7', 'brave_hopper71', 'brave_hopp', 'brave_hertz1', 'keen_curie2', 'web', 'web-2', 'train_fast']

  it.each([
    ['web', 'web'],
    ['brave_hopper7', 'brave_hopper7'],
    ['keen', 'keen_curie2'],
    ['keen_curie2', 'keen_curie2'],
    ['brave_hopp', 'brave_hopp'],
    ['brave_hop', 'brave_hopper7'],
    // A name that somebody chose is never shortened, nor is anything to a letter or two.
    ['web-', undefined],
    ['train', undefined],
    ['kee', undefined],
    ['nobody', undefined],
  ])('by %s', (name, jid) => expect(meantBy(name, jids)).toBe(jid))

  it('is one', () => {
    expect(() => meantBy('brave', jids)).toThrow(
      expect.objectContaining({ code: 'BAD_OPTIONS', message: 'brave fits several jobs: brave_hopper7, brave_hertz1' }),
    )
  })
})

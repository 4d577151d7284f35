import { describe, expect, it } from 'vitest'
import { checkJobId, randomJobId } from './names.js'

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

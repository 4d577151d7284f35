import { expect, test } from 'vitest'
import { wrap } from './wrap.js'

test('lines break at words; a word that is too long stands alone', () => {
  expect(wrap('aa bb  cc', 5)).toEqual(['aa bb', 'cc'])
  expect(wrap('longerthanthat b', 5)).toEqual(['longerthanthat', 'b'])
  expect(wrap('', 5)).toEqual([])
})

import { expect, test } from 'vitest'
import { satisfies } from './version.js'

test.each([
  ['1.0.0', '^1.0', true],
  ['1.4.2', '^1.0', true],
  ['2.0.0', '^1.0', false],
  ['1.0.0', '^1.1', false],
  ['0.3.1', '^0.3', true],
  ['0.4.0', '^0.3', false],
  ['0.0.4', '^0.0.3', false],
  ['1.2.9', '~1.2', true],
  ['1.3.0', '~1.2', false],
  ['1.3.0', '~1', true],
  ['1.2.3', '1.2.3', true],
  ['1.2.4', '1.2.3', false],
  ['1.2.4', '1.2', true],
  ['1.9.0', '1', true],
  ['4.2', '>=3.16', true],
  ['1.1.5+ds1', '>=1.1', true],
  ['6.18.44-cloud', '>=5.10 <7', true],
  ['7.0', '>=5.10 <7', false],
  ['3.0.0', '1.2 || ^3', true],
  ['3.0.0', '>3', false],
  ['2.9.9', '<=3', true],
  ['1.0.0', 'anything', false],
  ['1.0.0', '', false],
  ['unknown', '>=1', false],
])('%s in %s: %s', (version, range, expected) => {
  expect(satisfies(version, range)).toBe(expected)
})

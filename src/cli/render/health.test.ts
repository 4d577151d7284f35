import { expect, test } from 'vitest'
import { healthTable, healthVerdict } from './health.js'
import { plain } from './style.js'

const ok = { name: 'version', data: '40201', warnings: [], errors: [] }
const warned = { name: 'features', data: 'available', warnings: ['first warning', 'second'], errors: [] }
const broken = { name: 'runtime', data: 'missing', warnings: [], errors: ['gone'] }

test('sections, marks, messages on lines of their own', () => {
  expect(
    healthTable(
      [
        { name: 'criu', components: [ok, warned] },
        { name: 'runc', components: [broken] },
      ],
      plain,
    ),
  ).toBe(
    [
      'CRIU',
      'version   40201      ✔',
      'features  available  •  first warning',
      '                     •  second',
      '',
      'RUNC',
      'runtime   missing    ✖  gone',
      '',
    ].join('\n'),
  )
})

test('verdict', () => {
  expect(healthVerdict([{ name: 'a', components: [ok] }])).toBe('All good.')
  expect(healthVerdict([{ name: 'a', components: [ok, warned] }])).toBe('Looks good, with 2 warning(s).')
  expect(() => healthVerdict([{ name: 'a', components: [broken] }])).toThrow('Failed with 1 error(s).')
  expect(() => healthVerdict([{ name: 'a', components: [broken, warned] }])).toThrow('Failed with 1 error(s) and 2 warning(s).')
})

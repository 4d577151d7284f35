import { expect, test } from 'vitest'
import { coloured, plain } from './style.js'
import { table } from './table.js'

const columns = [{ header: 'job' }, { header: 'pid', align: 'right' }, { header: 'log' }] as const
const row = (...texts: string[]) => texts.map((text) => ({ text }))

test('columns are padded, two spaces apart, headers in upper case', () => {
  expect(table(columns, [row('a', '1', '/x'), row('longer', '4711', '')], { style: plain, headers: true })).toBe(
    ['JOB      PID  LOG', 'a          1  /x', 'longer  4711', ''].join('\n'),
  )
})

test('colour does not change the width', () => {
  const cells = [[{ text: 'a', colour: 'green' as const }, { text: '1' }, { text: 'z' }]]
  expect(table(columns, cells, { style: coloured, headers: false })).toBe('\x1b[32ma\x1b[0m  1  z\n')
})

test('the last column is cut to the width of the terminal', () => {
  expect(table(columns, [row('a', '1', '/very/long/path')], { style: plain, headers: false, width: 12 })).toBe('a  1  /very…\n')
})

test('control characters of names do not reach the terminal', () => {
  expect(table([{ header: 'x' }], [row('a\x1b[31m\n')], { style: plain, headers: false })).toBe('a?[31m?\n')
})

import { describe, expect, test } from 'vitest'
import { formatAge, formatDuration, formatSize, formatTime, parseDuration } from './units.js'

test.each([
  [0, ''],
  [-1, ''],
  [1, '1 bytes'],
  [1023, '1023 bytes'],
  [1536, '2 KiB'],
  [5 * 2 ** 20, '5 MiB'],
  [2 ** 40, '1024 GiB'],
])('size %d', (bytes, text) => {
  expect(formatSize(bytes)).toBe(text)
})

test.each([
  [0, 'about a second ago'],
  [1400, 'about a second ago'],
  [12_000, '12 seconds ago'],
  [59_400, '59 seconds ago'],
  [59_600, 'about a minute ago'],
  [5 * 60_000, '5 minutes ago'],
  [3_600_000, 'about an hour ago'],
  [3 * 3_600_000, '3 hours ago'],
  [86_400_000, 'one day ago'],
  [31 * 86_400_000, 'one month ago'],
  [365 * 86_400_000, 'one year ago'],
  [900 * 86_400_000, '2 years ago'],
])('age of %d ms', (age, text) => {
  expect(formatAge(1e12, 1e12 + age)).toBe(text)
})

test('a time that is not set is empty', () => {
  expect(formatAge(0, 1)).toBe('')
  expect(formatTime(0)).toBe('')
})

test('a time is local', () => {
  expect(formatTime(new Date(2026, 0, 2, 3, 4, 5).getTime())).toBe('2026-01-02 03:04:05')
})

test.each([
  [0, 'auto', '0ns'],
  [999, 'auto', '999ns'],
  [1500, 'auto', '1.5us'],
  [12_345_678, 'auto', '12.346ms'],
  [2_000_000_000, 'auto', '2s'],
  [2_000_000, 's', '0.002s'],
  [1234, 'ns', '1234ns'],
] as const)('duration %d, %s', (ns, precision, text) => {
  expect(formatDuration(ns, precision)).toBe(text)
})

describe('durations from the command line', () => {
  test.each([
    ['90', 90_000],
    ['1.5s', 1500],
    ['1m30s', 90_000],
    ['500ms', 500],
    ['2h', 7_200_000],
    ['soon', undefined],
    ['-1s', undefined],
    ['', undefined],
  ])('%s', (text, ms) => {
    expect(parseDuration(text)).toBe(ms)
  })
})

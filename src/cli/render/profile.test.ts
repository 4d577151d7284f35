import { expect, test } from 'vitest'
import { profileJson, profileText } from './profile.js'
import { plain } from './style.js'

const steps = [
  { name: 'plan', category: '', durationNs: 1_000_000, bytes: 0 },
  { name: 'criu dump', category: 'criu', durationNs: 3_000_000, bytes: 2048 },
  { name: 'nothing', category: 'criu', durationNs: 0, bytes: 0 },
]

test('every step, its sum, and the sums of the categories', () => {
  expect(profileText({ operation: 'dump', steps }, { detailed: true, precision: 'auto', style: plain })).toBe(
    [
      '1ms  other         plan',
      '3ms  criu   2 KiB  criu dump',
      '4ms         2 KiB  dump (total)',
      '',
      '1ms  25.00%         other',
      '3ms  75.00%  2 KiB  criu',
      '4ms          2 KiB  dump (total)',
      '',
      '',
    ].join('\n'),
  )
})

test('without details only the sums', () => {
  const text = profileText({ operation: 'run', steps: steps.slice(0, 1) }, { detailed: false, precision: 'us', style: plain })
  expect(text).toBe('1000us  100.00%    other\n1000us             run (total)\n\n')
})

test('as a file, zero values left out', () => {
  expect(JSON.parse(profileJson({ operation: 'dump', steps }))).toEqual({
    name: 'dump',
    duration: 4_000_000,
    io: 2048,
    components: [
      { name: 'plan', duration: 1_000_000 },
      { name: 'criu dump', duration: 3_000_000, io: 2048, category: 'criu' },
      { name: 'nothing', category: 'criu' },
    ],
  })
})

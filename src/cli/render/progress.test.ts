import { expect, test } from 'vitest'
import { ProgressLine, progressText } from './progress.js'

const step = { phase: 'criu dump', bytes: 3 * 2 ** 20, totalBytes: 4 * 2 ** 20, frozen: true }

test('phase, bytes, rate, time, frozen', () => {
  expect(progressText(step, 3000)).toBe('criu dump  3 MiB of 4 MiB (75%)  1 MiB/s  3 s  frozen')
  expect(progressText({ ...step, bytes: 0, frozen: false }, 1000)).toBe('criu dump  1 s')
})

test('shown after a second, not too often, erased at the end', () => {
  const written: string[] = []
  let now = 0
  const line = new ProgressLine({ isTTY: true, columns: 30, write: (text) => written.push(text) }, undefined, () => now)
  line.update(step)
  expect(written).toEqual([])
  now = 1000
  line.update(step)
  now = 1100
  line.update(step)
  line.end()
  expect(written).toEqual(['\r\x1b[Kcriu dump  3 MiB of 4 MiB (75', '\r\x1b[K'])
})

test('silent where there is no terminal', () => {
  const written: string[] = []
  let now = 0
  const line = new ProgressLine({ isTTY: false, write: (text) => written.push(text) }, undefined, () => now)
  now = 5000
  line.update(step)
  line.end()
  expect(written).toEqual([])
})

test('each step is told of once', () => {
  const steps: string[] = []
  const line = new ProgressLine({ write: () => {} }, (text) => steps.push(text))
  for (const phase of ['plan', 'criu dump', 'criu dump', 'seal']) line.update({ ...step, phase })
  expect(steps).toEqual(['plan', 'criu dump', 'seal'])
})

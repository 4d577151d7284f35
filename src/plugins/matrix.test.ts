import { expect, test } from 'vitest'
import { FEATURES, VERBS } from './contract/runtime.js'
import { featureMatrix } from './matrix.js'

const none = { verbs: {}, features: {} }

test('a mark for each verb and feature of each plugin, as it claims them', () => {
  const claims = { name: 'a', verbs: { dump: 'stable', restore: 'experimental' }, features: { gpu: 'stable' } } as const
  const [verbs = [], features = []] = featureMatrix([
    claims,
    { name: 'b', ...none, state: 'missing' },
    { name: 'c', ...none, state: 'broken' },
  ])
  expect(verbs).toHaveLength(Object.keys(VERBS).length)
  expect(features).toHaveLength(Object.keys(FEATURES).length)
  expect(verbs.find(({ feature }) => feature === 'Dump')?.marks).toEqual({ a: 'stable', b: 'missing', c: 'broken' })
  expect(verbs.find(({ feature }) => feature === 'Restore')?.marks['a']).toBe('experimental')
  expect(verbs.find(({ feature }) => feature === 'Query')?.marks['a']).toBe('none')
  expect(features.find(({ feature }) => feature === 'GPU')?.marks['a']).toBe('stable')
})

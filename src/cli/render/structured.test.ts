import { expect, test } from 'vitest'
import { toJson, toYaml } from './structured.js'

const value = { checkpointId: 'a', dropped: undefined, list: [{ frozenUs: 1 }], environment: { PATH: '/bin', HTTP_PROXY: 'x' } }

test('names of ours become snake_case, names of others stay', async () => {
  expect(JSON.parse(toJson(value))).toEqual({
    checkpoint_id: 'a',
    list: [{ frozen_us: 1 }],
    environment: { PATH: '/bin', HTTP_PROXY: 'x' },
  })
  expect(await toYaml(value)).toBe('checkpoint_id: a\nlist:\n  - frozen_us: 1\nenvironment:\n  PATH: /bin\n  HTTP_PROXY: x\n')
})

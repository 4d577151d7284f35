import { expect, it } from 'vitest'
import type { Host } from '../contract/host.js'
import { specForRestore } from './spec.js'

const host = { exists: async () => false, readText: async () => undefined } as unknown as Host
const json = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value))

it('a bundle without a configuration has that of the checkpoint, and its damage is the checkpoint’s', async () => {
  const spec = { ociVersion: '1.0.2', process: {}, root: { path: '/elsewhere' } }
  expect(await specForRestore(host, '/bundle', json(spec))).toMatchObject({ isSaved: true, spec: { root: { path: 'rootfs' } } })
  const damaged = { code: 'IMAGE_CORRUPT', message: expect.stringContaining('spec.dump of the checkpoint is damaged') as unknown }
  await expect(specForRestore(host, '/bundle', Buffer.from('{"oci'))).rejects.toMatchObject(damaged)
  await expect(specForRestore(host, '/bundle', json([]))).rejects.toMatchObject(damaged)
  const absent = { code: 'BAD_OPTIONS', message: 'failed to load spec of bundle /bundle: there is no config.json in it' }
  await expect(specForRestore(host, '/bundle', undefined)).rejects.toMatchObject(absent)
})

import { expect, test, vi } from 'vitest'
import type { Engine } from '../../daemon/api/engine.js'
import { fakeJob, runFake } from '../../../test/support/fake-world.js'

const engine = {
  listJobs: async () => [fakeJob(), fakeJob({ jid: 'done', pid: 9, isRunning: false, status: 'halted' })],
  listCheckpoints: async () => [
    { id: 'c1', jid: 'train', type: 'process', path: '/p', time: 1, size: 1, compression: 'none', exists: true },
  ],
}
const complete = async (...words: string[]) => (await runFake(['__complete', '--', ...words], { engine })).stdout.trimEnd().split('\n')

test('commands and sub-commands', async () => {
  const lines = await complete('du')
  expect(lines).toContain('dump\tmake a checkpoint')
  expect(lines.join()).not.toContain('__complete')
  expect(await complete('dump', '')).toEqual([
    'job\tdump a job',
    'process\tdump a target of type process',
    'runc\tdump a target of type runc',
    'containerd\tdump a target of type containerd',
    'k8s\tdump a target of type k8s',
    ':none',
  ])
})

test('flags, and the values of a flag', async () => {
  expect((await complete('dump', 'process', '--com')).join()).toContain('--compression')
  expect(await complete('ps', '--output', '')).toEqual(['table\t', 'wide\t', 'json\t', 'yaml\t', 'name\t', ':none'])
  expect(await complete('dump', 'process', '--dir', '')).toEqual([':files'])
})

test('the value of a flag that is joined to it, in one word or in the three that bash makes of it', async () => {
  expect(await complete('ps', '--output=j')).toContain('--output=json\t')
  expect(await complete('ps', '--output', '=', 'j')).toContain('json\t')
  expect(await complete('ps', '--output', '=')).toContain('json\t')
  expect(await complete('dump', 'job', '--compression', '=', 'gzip', '')).toContain('train\tprocess, running')
})

test('formats, signals, and commands to be helped with', async () => {
  expect(await complete('dump', 'process', '--compression', '')).toContain('zstd\t')
  expect(await complete('kill', '--signal', '')).toContain('TERM\t')
  expect(await complete('help', 'du')).toContain('dump\tmake a checkpoint')
  expect(await complete('help', 'dump', '')).toContain('job\tdump a job')
})

test('ids that the daemon knows', async () => {
  expect(await complete('dump', 'job', '')).toEqual(['train\tprocess, running', 'done\tprocess, halted', ':none'])
  expect(await complete('kill', 'train', '')).toEqual(['train\tprocess, running', 'done\tprocess, halted', ':none'])
  expect(await complete('attach', '')).toEqual(['4711\ttrain', ':none'])
  expect(await complete('checkpoint', 'inspect', '')).toEqual(['c1\ttrain', ':files'])
})

test('containers that a runtime knows, of where it is asked for', async () => {
  const query = vi.fn<Engine['query']>(async () => ({
    columns: ['ID', 'NAMESPACE', 'IMAGE'],
    rows: [{ cells: { ID: 'web', NAMESPACE: 'k8s.io', IMAGE: 'nginx:1' }, state: {} }],
    messages: [],
  }))
  const words = ['__complete', '--', 'dump', 'containerd', '--namespace', 'k8s.io', '--rootfs', '']
  const { stdout } = await runFake(words, { engine: { query }, env: { CONTAINERD_ADDRESS: '/run/other.sock' } })
  expect(stdout).toBe('web\tk8s.io, nginx:1\n:none\n')
  expect(query.mock.calls[0]?.[0]).toEqual({ type: 'containerd', options: { address: '/run/other.sock', namespace: 'k8s.io' } })
})

test('without a daemon: silence', async () => {
  expect((await runFake(['__complete', '--', 'job', 'kill', ''])).stdout).toBe(':none\n')
})

import { describe, expect, it } from 'vitest'
import type { GpuProcess } from '../contract/gpu.js'
import type { Host } from '../contract/host.js'
import type { Snapshot } from '../contract/job.js'
import { memoryProblems } from './memory.js'

const GIB = 2 ** 30
const hostWith = (files: Readonly<Record<string, string>>): Host => ({ readText: async (path: string) => files[path] }) as unknown as Host
const snapshotIn = (...cgroups: string[]): Snapshot => ({ processes: [{ pid: 7, cgroups }] }) as unknown as Snapshot
const using = (bytes: number): GpuProcess[] => [{ target: { pid: 7 }, deviceBytes: bytes } as unknown as GpuProcess]
const ids = async (host: Host, snapshot: Snapshot, bytes: number): Promise<string[]> =>
  (await memoryProblems(host, snapshot, using(bytes))).map(({ id, message }) => `${id}: ${message}`)

describe('memory for what is on a GPU', () => {
  const meminfo = { '/proc/meminfo': `MemTotal: 9 kB\nMemAvailable:    ${(8 * GIB) / 1024} kB\n` }

  it('is there, or not', async () => {
    expect(await ids(hostWith(meminfo), snapshotIn('0::/'), 7 * GIB)).toEqual([])
    expect(await ids(hostWith(meminfo), snapshotIn('0::/'), 9 * GIB)).toEqual([
      'gpu-memory: the host has not enough memory for what is on the GPU: 9401 MiB are needed, 8192 MiB are free',
    ])
  })

  it.each([
    [
      '2',
      '0::/a/b',
      {
        '/sys/fs/cgroup/a/memory.max': `${3 * GIB}\n`,
        '/sys/fs/cgroup/a/memory.current': `${GIB}\n`,
        '/sys/fs/cgroup/a/b/memory.max': 'max\n',
      },
    ],
    [
      '1',
      '4:memory:/a/b',
      { '/sys/fs/cgroup/memory/a/memory.limit_in_bytes': `${3 * GIB}\n`, '/sys/fs/cgroup/memory/a/memory.usage_in_bytes': `${GIB}\n` },
    ],
  ])('is what a cgroup of version %s allows, the nearest limit counting', async (_, line, files) => {
    const host = hostWith({ ...meminfo, ...files })
    expect(await ids(host, snapshotIn(line), GIB)).toEqual([])
    expect(await ids(host, snapshotIn(line), 2 * GIB)).toEqual([
      'gpu-memory-limit: cgroup /a does not allow the memory for what is on the GPU: 2089 MiB are needed, 2048 MiB are left',
    ])
  })
})

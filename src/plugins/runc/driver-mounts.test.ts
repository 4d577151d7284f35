import { describe, expect, it } from 'vitest'
import type { Host } from '../contract/host.js'
import type { Mount, Snapshot } from '../contract/job.js'
import { driverMounts, driverProblems, externalAtDump, externalAtRestore } from './driver-mounts.js'

const MOUNTINFO = [
  '21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw',
  '22 21 0:5 / /dev rw,nosuid - devtmpfs udev rw',
  '23 21 8:2 /sub /opt/with\\040space rw - ext4 /dev/sda2 rw',
].join('\n')
const host = { readText: async () => MOUNTINFO, exists: async (path: string) => path !== '/dev/nvidia1' } as unknown as Host
const mount = (device: string, root: string, path: string): Mount => ({ device, root, path }) as Mount
const snapshotOf = (...mounts: Mount[]): Snapshot => ({ mounts }) as unknown as Snapshot

describe('mounts of a driver', () => {
  it('are found outside by their file systems', async () => {
    const found = await driverMounts(
      host,
      snapshotOf(
        mount('8:1', '/usr/lib/libcuda.so.570.86', '/usr/lib64/libcuda.so.570.86'),
        mount('0:5', '/nvidia0', '/dev/nvidia0'),
        mount('8:2', '/sub/nvidia-smi', '/usr/bin/nvidia-smi'),
        mount('0:99', '/nvidia1', '/dev/nvidia1'),
        mount('8:1', '/etc/hosts', '/etc/hosts'),
        mount('0:5', '/nvidiactl', '/dev/nvidiactl'),
      ),
      ({ path }) => path === '/dev/nvidiactl',
    )
    expect(found).toEqual([
      { path: '/usr/lib64/libcuda.so.570.86', source: '/usr/lib/libcuda.so.570.86' },
      { path: '/dev/nvidia0', source: '/dev/nvidia0' },
      { path: '/usr/bin/nvidia-smi', source: '/opt/with space/nvidia-smi' },
    ])
    expect(externalAtDump(found)[1]).toBe('mnt[/dev/nvidia0]:/dev/nvidia0')
    expect(externalAtRestore(found)[0]).toBe('mnt[/usr/lib64/libcuda.so.570.86]:/usr/lib/libcuda.so.570.86')
  })

  it('have to be there at the restore', async () => {
    const there = { path: '/dev/nvidia0', source: '/dev/nvidia0' }
    expect(await driverProblems(host, [there])).toEqual([])
    const missing = await driverProblems(host, [there, { path: '/dev/nvidia0', source: '/dev/nvidia1' }])
    expect(missing).toMatchObject([{ id: 'driver-mount-missing', message: expect.stringContaining('/dev/nvidia1') }])
  })
})

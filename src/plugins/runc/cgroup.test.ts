import { describe, expect, it } from 'vitest'
import type { Host } from '../contract/host.js'
import { configuredCgroups, freezerOf } from './cgroup.js'

describe('the freezer of a container', () => {
  it.each([
    ['version 1', ['5:freezer:/web', '4:memory:/web', '0::/'], '/sys/fs/cgroup/freezer/web'],
    ['version 1, several controllers in one hierarchy', ['5:cpu,freezer:/pods/web'], '/sys/fs/cgroup/freezer/pods/web'],
    ['both: that of version 1, which the runtime uses', ['5:freezer:/web', '0::/web'], '/sys/fs/cgroup/freezer/web'],
    ['version 2', ['0::/system.slice/web'], '/sys/fs/cgroup/system.slice/web'],
    ['version 2, beside hierarchies that the runtime does not see', ['5:freezer:/', '0::/web'], '/sys/fs/cgroup/web'],
    ['that of everybody', ['5:freezer:/', '0::/'], undefined],
    ['none', [''], undefined],
  ])('%s', (_, lines, expected) => {
    expect(freezerOf(lines)).toBe(expected)
  })
})

describe('where the runtime makes the cgroups of a container', () => {
  const VERSION_1 = [
    '30 1 0:20 / /sys/fs/cgroup ro - tmpfs tmpfs ro',
    '31 30 0:21 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory',
    '32 30 0:22 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd',
    '33 30 0:23 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct',
  ]
  const VERSION_2 = ['30 1 0:20 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw']
  const OWN_1 = ['4:memory:/user', '3:cpu,cpuacct:/', '1:name=systemd:/system.slice/cedana.service', '0::/']
  const OWN_2 = ['0::/system.slice/cedana.service']
  const look = (mounts: string[], own: string[], path: string, isCrun = false): Promise<readonly string[]> => {
    const files: Record<string, string> = { '/proc/self/mountinfo': mounts.join('\n'), '/proc/self/cgroup': own.join('\n') }
    const host = { readText: async (name: string) => files[name] } as unknown as Host
    return configuredCgroups(host, { id: 'web', isCrun, path })
  }
  const version1 = (path: string) => ['memory', 'systemd', 'cpu,cpuacct'].map((name) => `/sys/fs/cgroup/${name}${path}`)

  it.each([
    ['/pods/web', '/pods/web'],
    ['machine.slice:docker:web', '/machine.slice/docker-web.scope'],
    ['machine-a-b.slice:docker:web', '/machine.slice/machine-a.slice/machine-a-b.slice/docker-web.scope'],
    [':docker:web', '/system.slice/docker-web.scope'],
    ['-.slice:docker:web', '/docker-web.scope'],
    ['user.slice::web.slice', '/user.slice/web.slice'],
  ])('%s', async (path, expected) => {
    expect(await look(VERSION_1, OWN_1, path)).toEqual(version1(expected))
    expect(await look(VERSION_2, OWN_2, path)).toEqual([`/sys/fs/cgroup${expected}`])
  })

  it('a relative one is below that of the daemon, in version 2 beside it', async () => {
    const [memory, systemd, cpu] = ['memory/user', 'systemd/system.slice/cedana.service', 'cpu,cpuacct'].map(
      (own) => `/sys/fs/cgroup/${own}/web`,
    )
    const scope = (name: string): string => `/sys/fs/cgroup/${name}/system.slice/runc-web.scope`
    // Where the configuration says nothing, either driver may have made it.
    expect(await look(VERSION_1, OWN_1, '')).toEqual([memory, scope('memory'), systemd, scope('systemd'), cpu, scope('cpu,cpuacct')])
    expect(await look(VERSION_2, OWN_2, '')).toEqual(['/sys/fs/cgroup/system.slice/web', '/sys/fs/cgroup/system.slice/runc-web.scope'])
    expect(await look(VERSION_2, OWN_2, 'pods/web')).toEqual(['/sys/fs/cgroup/system.slice/pods/web'])
  })

  it('of crun: below the root', async () => {
    expect(await look(VERSION_2, OWN_2, '', true)).toEqual(['/sys/fs/cgroup/web', '/sys/fs/cgroup/system.slice/crun-web.scope'])
    expect(await look(VERSION_2, OWN_2, 'a.slice::web', true)).toEqual(['/sys/fs/cgroup/a.slice/web.scope'])
  })

  it('the root of a hierarchy is nobody’s', async () => {
    expect(await look(VERSION_2, OWN_2, '/')).toEqual([])
  })
})

import { describe, expect, it } from 'vitest'
import { freezerOf } from './cgroup.js'

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

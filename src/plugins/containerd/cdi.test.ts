import { describe, expect, it } from 'vitest'
import type { Host } from '../contract/host.js'
import { deviceName, edited, editsFor, NO_EDITS } from './cdi.js'

const NVIDIA = `
cdiVersion: 0.5.0
kind: nvidia.com/gpu
containerEdits:
  env: [NVIDIA_VISIBLE_DEVICES=void]
  deviceNodes:
    - path: /dev/nvidiactl
  hooks:
    - hookName: createContainer
      path: /usr/bin/nvidia-cdi-hook
      args: [nvidia-cdi-hook, update-ldcache]
  mounts:
    - hostPath: /usr/lib/libcuda.so.570.86.15
      containerPath: /usr/lib/libcuda.so.570.86.15
      options: [ro, nosuid, nodev, bind]
devices:
  - name: "0"
    containerEdits:
      deviceNodes:
        - path: /dev/nvidia0
          fileMode: 0666
  - name: all
    containerEdits:
      deviceNodes:
        - path: /dev/nvidia0
        - path: /dev/inside
          hostPath: /dev/nvidia1
          permissions: rw
`
const OTHER = JSON.stringify({
  kind: 'nvidia.com/gpu',
  devices: [{ name: 'all', containerEdits: { additionalGids: [44], env: ['NVIDIA_VISIBLE_DEVICES=all'] } }],
})
const UNKNOWN = OTHER.replace('"env":', '"netDevices":')
const WITHOUT_NODE = NVIDIA.replace('/dev/nvidiactl', '/dev/none')

function hostWith(files: Readonly<Record<string, string>>): Host {
  const nodes: Readonly<Record<string, string>> = { '/dev/nvidiactl': 'c3:ff', '/dev/nvidia0': 'c3:0', '/dev/nvidia1': 'c3:1' }
  return {
    readText: async (path: string) => files[path],
    exists: async (path: string) => Object.keys(files).some((file) => file.startsWith(`${path}/`)),
    exec: async ([program, ...args]: readonly string[]) => {
      const path = args.at(-1) ?? ''
      if (program === 'stat' && nodes[path] === undefined) return { code: 1, stdout: '', stderr: 'none\n' }
      if (program === 'stat') return { code: 0, stdout: `character special file:${nodes[path] ?? ''}\n`, stderr: '' }
      return {
        code: 0,
        stdout: Object.keys(files)
          .filter((file) => file.startsWith(`${args[1] ?? ''}/`))
          .join('\n'),
        stderr: '',
      }
    },
  } as unknown as Host
}
const nvidia = { '/etc/cdi/nvidia.yaml': NVIDIA, '/etc/cdi/README': 'no description' }

describe('devices as CDI describes them', () => {
  it('are those of NVIDIA where only a number is given', () => {
    expect(['0', 'all', 'vendor.com/net=eth0'].map(deviceName)).toEqual(['nvidia.com/gpu=0', 'nvidia.com/gpu=all', 'vendor.com/net=eth0'])
  })

  it('come with what all of their kind need, once, and with their numbers', async () => {
    const edits = await editsFor(hostWith(nvidia), ['0', 'all'])
    expect(edits.deviceNodes.map(({ path, type, major, minor, fileMode }) => [path, type, major, minor, fileMode])).toEqual([
      ['/dev/nvidiactl', 'c', 195, 255, undefined],
      ['/dev/nvidia0', 'c', 195, 0, 0o666],
      ['/dev/nvidia0', 'c', 195, 0, undefined],
      ['/dev/inside', 'c', 195, 1, undefined],
    ])
    expect([edits.hooks.length, edits.mounts.length]).toEqual([1, 1])
    expect(await editsFor(hostWith({}), [])).toEqual(NO_EDITS)
  })

  it('are those of the files that can be read', async () => {
    const files = { ...nvidia, '/etc/cdi/a.json': '{}', '/etc/cdi/b.json': OTHER }
    expect((await editsFor(hostWith(files), ['0'])).deviceNodes).toHaveLength(2)
  })

  it('count most in /var/run/cdi', async () => {
    const edits = await editsFor(hostWith({ ...nvidia, '/var/run/cdi/nvidia.json': OTHER }), ['all'])
    expect(edits).toEqual({ ...NO_EDITS, additionalGids: [44], env: ['NVIDIA_VISIBLE_DEVICES=all'] })
  })

  it.each([
    ['none is described', {}, '0', 'no device nvidia.com/gpu=0 is described in /etc/cdi or /var/run/cdi', 'nvidia-ctk cdi generate'],
    ['that one is not', nvidia, '7', 'no device nvidia.com/gpu=7', 'there are: nvidia.com/gpu=0, nvidia.com/gpu=all'],
    [
      'two describe it',
      { ...nvidia, '/etc/cdi/z.json': OTHER },
      'all',
      'no device nvidia.com/gpu=all',
      '/etc/cdi/z.json cannot be used: nvidia.com/gpu=all is described in /etc/cdi/nvidia.yaml as well',
    ],
    ['it is no description', { '/etc/cdi/a.json': '{}' }, '0', 'no device nvidia.com/gpu=0', '/etc/cdi/a.json cannot be used: kind'],
    ['it is not YAML', { '/etc/cdi/a.yaml': '{[' }, '0', 'no device nvidia.com/gpu=0', '/etc/cdi/a.yaml cannot be used: '],
    ['it says what is not known here', { '/etc/cdi/a.json': UNKNOWN }, 'all', '/etc/cdi/a.json cannot be used: Unrecognized key', ''],
    ['a node is not there', { '/etc/cdi/a.yaml': WITHOUT_NODE }, '0', 'there is no device /dev/none: none', ''],
  ])('are refused when %s', async (_, files, name, message, hint) => {
    await expect(editsFor(hostWith(files), [name])).rejects.toMatchObject({
      code: 'HOST_UNFIT',
      message: expect.stringContaining(message),
      hint: expect.stringContaining(hint),
    })
  })

  it('are in the specification of the container, in place of what was there', async () => {
    const spec = {
      process: { env: ['A=1', 'NVIDIA_VISIBLE_DEVICES=all'], user: { uid: 5, gid: 6, additionalGids: [44] } },
      mounts: [{ destination: '/proc' }, { destination: '/usr/lib/libcuda.so.570.86.15' }],
      linux: { resources: { devices: [{ allow: false }] }, namespaces: [] },
    }
    const edits = await editsFor(hostWith(nvidia), ['all'])
    expect(edited(spec, { ...edits, additionalGids: [0, 44, 7] })).toEqual({
      process: { env: ['A=1', 'NVIDIA_VISIBLE_DEVICES=void'], user: { uid: 5, gid: 6, additionalGids: [44, 7] } },
      mounts: [
        { destination: '/proc' },
        expect.objectContaining({ source: '/usr/lib/libcuda.so.570.86.15', options: ['ro', 'nosuid', 'nodev', 'bind'] }),
      ],
      linux: {
        namespaces: [],
        devices: ['/dev/nvidiactl', '/dev/nvidia0', '/dev/inside'].map((path): unknown =>
          expect.objectContaining({ path, type: 'c', major: 195, uid: 5, gid: 6 }),
        ),
        resources: {
          devices: [
            { allow: false },
            { allow: true, type: 'c', major: 195, minor: 255, access: 'rwm' },
            { allow: true, type: 'c', major: 195, minor: 0, access: 'rwm' },
            { allow: true, type: 'c', major: 195, minor: 1, access: 'rw' },
          ],
        },
      },
      hooks: {
        createContainer: [expect.objectContaining({ path: '/usr/bin/nvidia-cdi-hook', args: ['nvidia-cdi-hook', 'update-ldcache'] })],
      },
    })
    expect(edited(spec, NO_EDITS)).toEqual({ ...spec, linux: { ...spec.linux, devices: [] } })
  })
})

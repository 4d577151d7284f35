/** Containers with GPU devices: by an edit of the bundle, as CDI makes it, and by a hook that mounts what the bundle does not say. */
import { existsSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { type Spec, useContainers } from '../support/containers.js'
import { useGpuWorld } from '../support/gpu.js'
import { program } from '../support/programs.js'
import { until } from '../support/wait.js'

/** Made by `scripts/setup --tests`. */
const DEBIAN = '/var/cache/cedana/debian-rootfs'
/** Where the container has its devices, and the library beside them. */
const INSIDE = '/dev/nvidia-double'
const NODES = ['nvidiactl', 'nvidia0']

const { world, gpu } = useGpuWorld({ devicePrefix: `${INSIDE}/nvidia` })
const containers = useContainers(world)

function debian(spec: Spec, path: string): void {
  spec.root = { path: DEBIAN, readonly: true }
  spec.process.env = spec.process.env.map((line) => (line.startsWith('PATH=') ? 'PATH=/usr/bin:/bin' : line))
  spec.mounts.push({ destination: '/tmp', type: 'tmpfs', source: 'tmpfs', options: ['mode=755'] })
  spec.mounts.push({ destination: '/tmp/gpu', type: 'bind', source: path, options: ['bind', 'ro'] })
  const devices = [
    { allow: false, access: 'rwm' },
    { allow: true, type: 'c', major: 10, minor: 229, access: 'rw' },
  ]
  spec.linux['resources'] = { devices }
}

/** The bundle says all of it. */
function edited(spec: Spec): void {
  spec.mounts.push({
    destination: `${INSIDE}/libcuda.so.1`,
    type: 'bind',
    source: gpu().library,
    options: ['bind', 'ro', 'nosuid', 'nodev'],
  })
  spec.linux['devices'] = NODES.map((name) => ({ path: `${INSIDE}/${name}`, type: 'c', major: 10, minor: 229, fileMode: 0o666 }))
}

/** The hook comes when the container has its mounts, and is not in its root yet. */
function hooked(spec: Spec): void {
  const mount = `for f in libcuda.so.1 ${NODES.join(' ')}; do touch ${DEBIAN}${INSIDE}/$f; mount --bind ${gpu().dir}/$f ${DEBIAN}${INSIDE}/$f; done`
  const script = `pid=$(sed -n 's/.*"pid":\\([0-9]*\\).*/\\1/p'); nsenter --target $pid --mount sh -c 'mkdir -p ${DEBIAN}${INSIDE}; ${mount}'`
  spec['hooks'] = { prestart: [{ path: '/bin/sh', args: ['sh', '-c', script] }] }
}

test.each([
  ['the bundle', edited],
  ['a hook', hooked],
])('a container with devices by %s is dumped and restored', async (_, devices) => {
  const id = containers.id('gpu')
  const jid = world.jid('gpu')
  const path = await program('gpu')
  const change = (spec: Spec): void => {
    debian(spec, path)
    devices(spec)
  }
  const bundle = containers.bundle(id, { args: ['/tmp/gpu', `${INSIDE}/libcuda.so.1`, '2', '2'], change })
  const { stdout } = await world.ok(['run', 'runc', id, '--jid', jid, '--bundle', bundle, '--root', containers.root])
  const pid = Number(/PID (\d+)/.exec(stdout)?.[1])
  const log = `/var/log/cedana-output-${jid}.log`
  const says = (pattern: RegExp, times: number): Promise<unknown> =>
    until(`it says ${pattern}`, () => existsSync(log) && (readFileSync(log, 'utf8').match(pattern)?.length ?? 0) >= times)
  await says(/^READY$/gm, 1)
  process.kill(pid, 'SIGUSR2')
  await says(/^ALIVE$/gm, 1)

  gpu().arm()
  await world.ok(['dump', 'job', jid])
  expect(
    gpu()
      .calls()
      .filter((line) => /^(lock|checkpoint)/.test(line)),
  ).toHaveLength(4)
  const restored = Number(/PID: (\d+)/.exec((await world.ok(['restore', 'job', jid])).stdout)?.[1])
  process.kill(restored, 'SIGUSR2')
  await says(/^ALIVE$/gm, 2)
  process.kill(restored, 'SIGUSR1')
  await says(/^PASS$/gm, 1)
  await until('the container is removed', () => containers.known().length === 0)
})

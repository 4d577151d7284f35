/** Containers of containerd with GPU devices: described by CDI, and by the hook that `ctr run --gpus` leaves in their specification. */
import { execFile } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { useContainerd } from '../support/containerd.js'
import { useGpuWorld } from '../support/gpu.js'
import { program } from '../support/programs.js'
import { until } from '../support/wait.js'

/** Made by `scripts/setup --tests`. */
const DEBIAN = '/var/cache/cedana/debian-rootfs'
/** Where the container has its devices, and the library beside them. */
const INSIDE = '/dev/nvidia-double'
const NODES = ['nvidiactl', 'nvidia0']
const PROGRAM = '/run/gpu'
const COMMAND = [PROGRAM, `${INSIDE}/libcuda.so.1`, '2', '2']

const { world, gpu } = useGpuWorld({ devicePrefix: `${INSIDE}/nvidia` })
const containerd = useContainerd(world)

/** Dumped and restored, with what was on the device, as long as `output` shows what it says. */
async function comesBack(jid: string, first: number, output: () => Promise<string>): Promise<void> {
  const says = (pattern: RegExp, times: number): Promise<unknown> =>
    until(`it says ${pattern}`, async () => ((await output()).match(pattern)?.length ?? 0) >= times)
  await says(/^READY$/gm, 1)
  process.kill(first, 'SIGUSR2')
  await says(/^ALIVE$/gm, 1)
  gpu().arm()
  await world.ok(['dump', 'job', jid])
  const verbs = (): string[] =>
    gpu()
      .calls()
      .map((line) => line.replace(/ .*/, ''))
      .filter((verb) => verb !== 'thread' && verb !== 'state')
  expect(verbs()).toEqual(['lock', 'lock', 'checkpoint', 'checkpoint'])
  const pid = Number(/PID: (\d+)/.exec((await world.ok(['restore', 'job', jid])).stdout)?.[1])
  expect(verbs().slice(4)).toEqual(['restore', 'restore', 'unlock', 'unlock'])
  process.kill(pid, 'SIGUSR2')
  await says(/^ALIVE$/gm, 2)
  process.kill(pid, 'SIGUSR1')
  await until('it has ended', async () => (await world.inspect(jid)).is_running === false)
  // All that it had on the device was right.
  expect((await world.inspect(jid)).exit).toEqual({ code: 0 })
}

describe('with devices that CDI describes', () => {
  const kind = `cedana-${world.id}.test/gpu`
  const description = `/var/run/cdi/cedana-${world.id}.json`
  beforeAll(async () => {
    const bind = (hostPath: string, containerPath: string): object => ({
      hostPath,
      containerPath,
      options: ['ro', 'nosuid', 'nodev', 'bind'],
    })
    const node = (name: string): object => ({ path: `${INSIDE}/${name}`, hostPath: join(gpu().dir, name) })
    mkdirSync('/var/run/cdi', { recursive: true })
    const mounts = [bind(gpu().library, `${INSIDE}/libcuda.so.1`), { ...bind(await program('gpu'), PROGRAM) }]
    const containerEdits = { env: ['NVIDIA_VISIBLE_DEVICES=void'], deviceNodes: [node('nvidiactl')], mounts }
    const devices = [{ name: '0', containerEdits: { deviceNodes: [node('nvidia0')] } }]
    writeFileSync(description, JSON.stringify({ cdiVersion: '0.5.0', kind, containerEdits, devices }))
  })
  afterAll(() => rmSync(description))

  test('a container is run, dumped and restored', async () => {
    const jid = world.jid('cdi')
    const flags = ['--jid', jid, ...containerd.flags, '--env', world.mark, '--gpus', `${kind}=0`]
    const { stdout } = await world.ok(['run', 'containerd', DEBIAN, ...flags, '--', ...COMMAND])
    await comesBack(jid, Number(/PID (\d+)/.exec(stdout)?.[1]), async () => readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8'))
  })

  test('a container is refused those that are not described', async () => {
    const flags = ['--jid', world.jid('none'), ...containerd.flags]
    const failed = await world.fails(['run', 'containerd', DEBIAN, ...flags, '--gpus', `${kind}=7`, '--', '/bin/true'])
    expect(failed.stderr).toContain(`no device ${kind}=7 is described in /etc/cdi or /var/run/cdi`)
    expect((await world.fails(['run', 'containerd', DEBIAN, ...flags, '--gpus', 'x', '--', '/bin/true'])).stderr).toContain(
      'VENDOR/CLASS=NAME',
    )
    expect(await containerd.containers()).toEqual([])
  })
})

test('a container that `ctr run --gpus` made is dumped and restored, with what the hook of the vendor mounts', async () => {
  const bin = join(world.dir, 'bin')
  mkdirSync(bin)
  const mounts = ['libcuda.so.1', ...NODES].map((name) => `touch $d/${name}; mount --bind ${gpu().dir}/${name} $d/${name}`)
  const script = [
    '#!/bin/sh',
    'for word; do case $word in --pid=*) pid=${word#--pid=} ;; esac; done',
    `exec nsenter --target "$pid" --mount sh -ec 'd=$1${INSIDE}; mkdir -p $d; ${mounts.join('; ')}' sh "$word"`,
  ]
  writeFileSync(join(bin, 'nvidia-container-cli'), `${script.join('\n')}\n`, { mode: 0o755 })
  const id = containerd.id('hooked')
  const given = [
    ...['--gpus', '0', '--device', join(gpu().dir, 'nvidia0'), '--env', world.mark],
    ...[
      '--mount',
      'type=tmpfs,src=tmpfs,dst=/tmp,options=mode=755',
      '--mount',
      `type=bind,src=${await program('gpu')},dst=${PROGRAM},options=bind:ro`,
    ],
  ]
  // Its output is not this test's to see.
  const command = ['/bin/sh', '-c', `exec ${COMMAND.join(' ')} >/run/log 2>&1`]
  const env = { ...process.env, PATH: `${bin}:${process.env.PATH ?? ''}` }
  await promisify(execFile)('ctr', [...containerd.flags, 'run', '--detach', '--rootfs', ...given, DEBIAN, id, ...command], { env })
  const jid = world.jid('hooked')
  await world.ok(['manage', 'containerd', id, '--jid', jid, ...containerd.flags])
  const pid = (await containerd.task(id))?.pid ?? 0
  await comesBack(jid, pid, () => containerd.exec(id, '/bin/cat', '/run/log'))
  await containerd.remove(id)
})

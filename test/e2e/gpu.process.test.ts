/** Jobs that use a GPU, which is a double of the driver: dump, run on, restore, elsewhere and in streams; and what is refused. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import type { Progress } from '../../src/daemon/operations/verbs.js'
import { gpuJob, useGpuWorld } from '../support/gpu.js'
import { dumpRequest, engineOf } from '../support/requests.js'

const { world, gpu } = useGpuWorld()
afterEach(() => {
  gpu().arm()
  gpu().set({
    version: 12080,
    driver: '570.86.15',
    devices: 2,
    seed: 16,
    rate: 0,
    init: 0,
    nvml: 1,
    used: undefined,
    mps: 0,
    name: 'Double 100',
  })
})

const verbs = (): string[] =>
  gpu()
    .calls()
    .map((line) => line.replace(/ .*/, ''))
    .filter((verb) => verb !== 'thread' && verb !== 'state')
const sectionsOf = (path: string): unknown => {
  const manifest = JSON.parse(readFileSync(join(path, 'manifest.json'), 'utf8')) as { body: { sections: unknown } }
  return manifest.body.sections
}

describe('a job on a GPU', () => {
  test.each([1, 3])('of %d processes is dumped and restored with what was on the device', async (processes) => {
    const job = await gpuJob(world, gpu(), processes)
    gpu().arm()
    const path = await world.dump(job)
    expect(verbs()).toEqual([...Array<string>(processes).fill('lock'), ...Array<string>(processes).fill('checkpoint')])
    expect(sectionsOf(path)).toMatchObject([{ name: 'gpu', data: { driver: '570.86.15', devices: [{ name: 'Double 100' }, {}] } }])
    gpu().arm()
    const { stdout } = await world.ok(['checkpoint', 'inspect', '--type', 'gpu', path])
    expect(stdout.match(/^ *\d+ +Double 100 +6/gm)).toHaveLength(processes)
    await world.ok(['restore', 'job', job.jid])
    expect(verbs()).toEqual([...Array<string>(processes).fill('restore'), ...Array<string>(processes).fill('unlock')])
    expect((await world.row(job.jid))?.[4]).toBe('yes')
    await job.works()
    await job.verify()
  })

  test.each([[['--streams', '2']], [['--compression', 'lz4']], [['--streams', '3', '--compression', 'zstd']]])(
    'goes through %j like any other memory',
    async (flags) => {
      const job = await gpuJob(world, gpu(), 2, 8)
      await world.dump(job, flags)
      await world.ok(['restore', 'job', job.jid])
      await job.works()
      await job.verify()
    },
  )

  test('has it back before the checkpoint is on the disk, when it is to run on', async () => {
    const job = await gpuJob(world, gpu(), 1, 16)
    gpu().arm()
    const { stdout } = await world.ok(['dump', 'job', job.jid, '--leave-running'], {
      env: { CEDANA_PROFILING_ENABLED: 'true', CEDANA_PROFILING_PRECISION: 'ms' },
    })
    const order = ['lock gpu', 'copy from gpu', 'criu dump', 'resume', 'copy to gpu', 'flush pages', 'seal']
    const lines = stdout.split('\n').map((line) => line.trimEnd())
    expect(lines.flatMap((line) => order.find((name) => line.endsWith(` ${name}`)) ?? [])).toEqual(order)
    expect(lines.find((line) => line.endsWith(' copy from gpu'))).toMatch(/gpu +20( MiB|M)/)
    expect(verbs()).toEqual(['lock', 'checkpoint', 'restore', 'unlock'])
    await job.works()
    await job.verify()
  })
})

describe('memory of another process', () => {
  test('is exported, which the driver takes', async () => {
    const job = await gpuJob(world, gpu(), 1, 2, ['export'])
    await world.dump(job)
    await world.ok(['restore', 'job', job.jid])
    await job.works()
    await job.verify()
  })

  test('is imported, and the importer waits for it, however long its copying takes', async () => {
    const job = await gpuJob(world, gpu(), 2, 2, ['import'])
    // Longer than a failure is tried again for.
    gpu().set({ rate: 3_500_000 })
    await world.ok(['dump', 'job', job.jid, '--leave-running'])
    await job.works()
    await world.dump(job)
    await world.ok(['restore', 'job', job.jid])
    await job.works()
    await job.verify()
  })
})

describe('a checkpoint of other GPUs', () => {
  test('is restored onto those here, in order or as --gpus says, by a driver that can', async () => {
    const job = await gpuJob(world, gpu(), 2)
    await world.dump(job)
    gpu().set({ seed: 64 })
    expect((await world.fails(['restore', 'job', job.jid])).stderr).toMatch(
      /other GPUs, and the NVIDIA driver \(570.86.15\) cannot restore onto these/,
    )
    gpu().set({ version: 13000, driver: '580.65.06' })
    expect((await world.fails(['restore', 'job', '--gpus', '0', job.jid])).stderr).toContain('needs 2 different GPUs, 1 were named')
    expect((await world.fails(['restore', 'job', '--gpus', '0,x', job.jid])).stderr).toContain('--gpus')
    gpu().arm()
    await world.ok(['restore', 'job', '--gpus', '1,0', job.jid])
    expect(
      gpu()
        .calls()
        .filter((line) => line.startsWith('restore'))
        .map((line) => line.replace(/^restore \d+ /, '')),
    ).toEqual(['10=41 11=40', '10=41 11=40'])
    await job.works()
    await world.dump(job)
    await world.ok(['restore', 'job', job.jid])
    await job.verify()
  })

  test('has those alone that its processes could see', async () => {
    const job = await gpuJob(world, gpu(), 2, 2, ['only', '1'])
    expect(sectionsOf(await world.dump(job))).toMatchObject([{ data: { devices: [{ uuid: '11'.repeat(16) }] } }])
    gpu().set({ version: 13000, driver: '580.65.06' })
    expect((await world.fails(['restore', 'job', '--gpus', '1,0', job.jid])).stderr).toContain('needs 1 different GPUs, 2 were named')
    gpu().arm()
    await world.ok(['restore', 'job', '--gpus', '0', job.jid])
    expect(
      gpu()
        .calls()
        .filter((line) => /^restore \d+ 11=10$/.test(line)),
    ).toHaveLength(2)
    await job.works()
    await job.verify()
  })

  test('is needed for --gpus', async () => {
    const job = await world.job('sleep')
    await world.dump(job)
    expect((await world.fails(['restore', 'job', '--gpus', '0', job.jid])).stderr).toContain('nothing on a GPU')
  })
})

describe('what cannot be done', () => {
  test('is said by --dry-run, and refused with the target as it was', async () => {
    const job = await gpuJob(world, gpu(), 1, 2, ['fork'])
    const { code, stdout, stderr } = await world.cedana(['dump', 'job', '--dry-run', job.jid])
    expect(code).toBe(1)
    expect(stdout + stderr).toContain('has a GPU open that it does not use itself')
    gpu().arm()
    expect((await world.fails(['dump', 'job', job.jid])).stderr).toContain('has a GPU open that it does not use itself')
    expect(verbs()).toEqual([])
    await job.works()
    await world.quick(['kill', job.jid])
  })

  test.each([
    ['a client of MPS', { mps: 1 }, 'uses its GPU through MPS, which cannot be dumped'],
    ['more than the host has memory for', { used: 2 ** 50 }, 'the host has not enough memory for what is on the GPU'],
    ['a driver that is too old', { version: 12040, driver: '550.54.14' }, 'uses a GPU, and the NVIDIA driver (550.54.14) is too old'],
  ])('is known beforehand of %s: the driver is asked to do nothing', async (_, settings, message) => {
    const job = await gpuJob(world, gpu())
    gpu().arm()
    gpu().set(settings)
    expect((await world.fails(['dump', 'job', job.jid])).stderr).toContain(message)
    expect(verbs()).toEqual([])
    await job.works()
    await job.verify()
  })

  test('managed memory, which the driver does not take, leaves the target on its device', async () => {
    const job = await gpuJob(world, gpu(), 2, 2, ['managed'])
    gpu().arm()
    expect((await world.fails(['dump', 'job', job.jid])).stderr).toMatch(
      /features of CUDA that this driver cannot checkpoint[^]*UVM[^]*IPC/,
    )
    expect(verbs().sort()).toEqual(['checkpoint', 'checkpoint', 'lock', 'lock', 'restore', 'unlock', 'unlock'])
    await job.works()
    // The driver has another answer from then on.
    expect((await world.fails(['dump', 'job', job.jid])).stderr).toMatch(/could not checkpoint[^]*UNKNOWN, 999[^]*second try[^]*UVM/)
    await job.works()
    await job.verify()
  })

  test('a process that stands still cannot hand over what it has on a device', async () => {
    const job = await gpuJob(world, gpu())
    await world.ok(['freeze', 'job', job.jid])
    expect((await world.fails(['dump', 'job', job.jid])).stderr).toMatch(/is stopped/)
    await world.ok(['unfreeze', 'job', job.jid])
    await job.works()
    await world.dump(job)
    expect((await world.fails(['restore', 'job', '--leave-stopped', job.jid])).stderr).toContain('cannot be left stopped')
    await world.ok(['restore', 'job', job.jid])
    await job.verify()
  })

  test('with a driver that is too old is refused from the beginning', async () => {
    gpu().set({ version: 12040, driver: '550.54.14' })
    expect((await world.fails(['run', 'process', '--gpu-enabled', '--', '/bin/true'])).stderr).toMatch(
      /550.54.14\) is too old .* 570 or newer/,
    )
    const { stdout, stderr } = await world.cedana(['check', '--full'])
    expect(stdout).toMatch(/CUDA\n[^]*driver +550.54.14[^]*checkpoint API +unavailable/)
    expect(stderr).toContain('Failed with')
  })
})

test('a job may be said to use a GPU, and others are found out', async () => {
  const said = await world.job('gpu', [gpu().library, '1', '1'], { flags: ['--gpu-enabled'] })
  const silent = await gpuJob(world, gpu())
  expect((await world.row(said.jid))?.[4]).toBe('yes')
  expect((await world.row(silent.jid))?.[4]).toBe('no')
  await world.dump(silent, ['--leave-running'])
  expect((await world.row(silent.jid))?.[4]).toBe('yes')
  await Promise.all([said.verify(), silent.verify()])
})

test('a process that is managed comes back with what it had on a device', async () => {
  const started = await world.foreign('gpu', [gpu().library, '2', '2'])
  const jid = world.jid('managed')
  await world.ok(['manage', 'process', String(started.pid), '--gpu-enabled', '--jid', jid])
  expect((await world.row(jid))?.[4]).toBe('yes')
  await world.ok(['dump', 'job', jid])
  await world.ok(['restore', 'job', jid])
  await started.verify()
})

test('while it is copied the progress says so, and how much it is', async () => {
  const engine = engineOf(world)
  const job = await gpuJob(world, gpu())
  gpu().set({ rate: 3 << 20 })
  const seen = new Map<string, number>()
  const onProgress = ({ phase, totalBytes }: Progress): void => {
    seen.set(phase, totalBytes)
  }
  await engine.dump(dumpRequest(job.jid, { leaveRunning: true }), { onProgress }).finally(() => engine.close())
  expect(seen.get('copy from gpu')).toBe(6 << 20)
  expect([...seen.keys()]).toContain('copy to gpu')
  gpu().set({ rate: 0 })
  await job.verify()
})

test('check says what there is', async () => {
  const { stdout } = await world.cedana(['check', '--full'])
  expect(stdout).toMatch(
    /CUDA\ndriver +570.86.15 +✔\nCUDA +12.8 +✔\ndevices +2 +✔\ncheckpoint API +available +✔[^]*memory +[\d.]+ GiB needed, [\d.]+ GiB free +✔/,
  )
  expect((await world.cedana(['check'])).stdout).not.toContain('checkpoint API')
})

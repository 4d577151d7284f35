/** Our GPU plugins against the suite, over a double of the driver. */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { CudaChild } from '../../src/daemon/host/cuda.js'
import { hostFor } from '../../src/daemon/operations/host.js'
import { loadGpu } from '../../src/plugins/index.js'
import { Registry } from '../../src/plugins/registry.js'
import { fakeGpu, type FakeGpu } from '../support/gpu.js'
import { children, environment } from '../support/processes.js'
import { program } from '../support/programs.js'
import { gpuContract, type GpuWorld, type LiveGpuTree } from './gpu.js'

const manifest = await loadGpu()

const directory = mkdtempSync(join(tmpdir(), 'cedana-contract-'))
let double: FakeGpu
let cuda: CudaChild
let host: ReturnType<typeof hostFor>
beforeAll(async () => {
  double = await fakeGpu(directory)
  cuda = new CudaChild({ library: double.library, management: double.library, callTimeoutMs: 1000 })
  const parts = { runtimes: new Registry([]), log: pino({ level: 'silent' }), cuda, config: { run_dir: directory } }
  host = hostFor(parts, new AbortController().signal)
})
afterAll(() => {
  cuda.close()
  rmSync(directory, { recursive: true })
})

const load = (): ReturnType<typeof manifest.load> => manifest.load({ devicePrefix: join(double.dir, 'nvidia'), lockTimeoutMs: 200 })

async function start(argv: readonly string[]): Promise<LiveGpuTree> {
  const [path = '', ...args] = argv
  const child: ChildProcessByStdio<null, Readable, null> = spawn(path, args, { stdio: ['ignore', 'pipe', 'inherit'], detached: true })
  let said = ''
  child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()))
  const says = async (times: number, line: string): Promise<void> => {
    const signal = AbortSignal.timeout(20_000)
    while (said.split('\n').filter((one) => one === line).length < times) await once(child.stdout, 'data', { signal })
  }
  await says(1, 'READY')
  const target = await host.identify(child.pid ?? 0)
  let asked = 0
  return {
    snapshot: () => host.inspect(target),
    works: async () => {
      process.kill(target.pid, 'SIGUSR2')
      await says(++asked, 'ALIVE')
    },
    stop: async () => {
      const ended = once(child, 'exit')
      process.kill(-Number(target.pid), 'SIGKILL')
      await ended
    },
  }
}

gpuContract(manifest, (): GpuWorld => ({
  host,
  load,
  start: async (processes) => start([await program('gpu'), double.library, String(processes), '1']),
  stranger: () => start(['/bin/sh', '-c', 'echo READY; sleep 100 & wait']),
  arm: (given) => {
    const { call, fault } = given ?? { call: 0, fault: undefined }
    double.arm(fault && (fault === 'thrice' ? { call, mode: 'before', times: 3 } : { call, mode: fault }))
  },
  calls: () => double.calls().length,
}))

describe('the CUDA plugin', () => {
  const find = async (tree: LiveGpuTree): Promise<readonly string[]> => {
    const { problems } = await (await load()).find(host, await tree.snapshot(), false)
    return problems.map(({ id, message }) => `${id}: ${message}`)
  }
  const gpuTree = async (...args: readonly string[]): Promise<LiveGpuTree> => start([await program('gpu'), double.library, ...args])

  test.each([
    [
      'a driver that is too old',
      { version: 12040, driver: '550.54.14' },
      /^gpu-driver: process \d+ \(gpu\) uses a GPU, and the NVIDIA driver \(550.54.14\) is too old .*: 570 or newer/,
    ],
    [
      'a driver that does not work',
      { init: 803 },
      /^gpu-driver: .*cannot be used: kernel module and library are of different versions \(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, 803\)/,
    ],
    ['memory that nobody knows of', { nvml: 0 }, /^gpu-memory-unknown: /],
    ['memory that nobody tells of', { used: -1 }, /^gpu-memory-unknown: /],
    [
      'more memory than the host has',
      { used: 2 ** 50 },
      /^gpu-memory: the host has not enough memory for what is on the GPU: \d+ MiB are needed/,
    ],
    ['a client of MPS', { mps: 1 }, /^gpu-mps: process \d+ \(gpu\) uses its GPU through MPS/],
  ])('says so of %s', async (_, settings, message) => {
    const tree = await gpuTree('1', '1')
    try {
      double.set(settings)
      cuda.close()
      expect(await find(tree)).toEqual([expect.stringMatching(message)])
    } finally {
      double.set({ version: 12080, driver: '570.86.15', init: 0, nvml: 1, used: undefined, mps: 0 })
      cuda.close()
      await tree.stop()
    }
  })

  test('refuses a child that has a device open and does not use it', async () => {
    const tree = await gpuTree('1', '1', 'fork')
    try {
      expect(await find(tree)).toEqual([expect.stringMatching(/^gpu-inherited: /)])
    } finally {
      await tree.stop()
    }
  })

  test('refuses what somebody else has taken from its device', async () => {
    const tree = await gpuTree('1', '1')
    try {
      const { pid } = (await tree.snapshot()).processes[0]!
      await cuda.lock(pid, 0)
      expect(await find(tree)).toEqual([expect.stringMatching(/^gpu-locked: .*somebody else/)])
      await cuda.unlock(pid)
    } finally {
      await tree.stop()
    }
  })

  test('says which features may be in the way, of what the driver does not take', async () => {
    const tree = await gpuTree('1', '1', 'managed')
    try {
      const gpu = await load()
      const { processes } = await gpu.find(host, await tree.snapshot(), false)
      await gpu.lock(host, processes)
      await expect(gpu.checkpoint(host, processes)).rejects.toMatchObject({ code: 'TARGET_UNFIT', hint: expect.stringContaining('UVM') })
      await gpu.release(host, processes, [])
      await tree.works()
    } finally {
      await tree.stop()
    }
  })

  test('gives up on work that does not end, and leaves it', async () => {
    const tree = await gpuTree('1', '1', 'spin', '3000')
    try {
      const gpu = await load()
      const { processes } = await gpu.find(host, await tree.snapshot(), false)
      await expect(gpu.lock(host, processes)).rejects.toMatchObject({ code: 'TIMEOUT' })
      await gpu.release(host, processes, [])
      await tree.works()
    } finally {
      await tree.stop()
    }
  })

  test('finds devices for a checkpoint of others, or says why not', async () => {
    const gpu = await load()
    const saved = (uuids: readonly string[], name = 'Double 100'): { version: number; data: unknown } => ({
      version: 1,
      data: {
        cudaVersion: 12080,
        driver: '570.86.15',
        devices: uuids.map((uuid) => ({ uuid, name, totalBytes: 1 })),
        processes: [{ pid: 1, deviceBytes: 1 }],
      },
    })
    const match = async (...args: [ReturnType<typeof saved>, readonly number[]]): Promise<unknown> => {
      const { devices, problems } = await gpu.match(host, ...args)
      return problems.length > 0 ? problems.map(({ id }) => id) : devices.map(({ from, to }) => `${from.slice(0, 2)}=${to.slice(0, 2)}`)
    }
    const [own, other, third] = ['10', '77', '78'].map((byte) => byte.repeat(16)) as [string, string, string]
    expect(await match(saved([own]), [])).toEqual([])
    expect(await match(saved([other]), [])).toEqual(['gpu-remap'])
    double.set({ version: 13000 })
    try {
      expect(await match(saved([own]), [1])).toEqual(['10=11'])
      expect(await match(saved([other, third]), [])).toEqual(['77=10', '78=11'])
      expect(await match(saved([other, third]), [1, 0])).toEqual(['77=11', '78=10'])
      expect(await match(saved([other, third]), [0])).toEqual(['gpu-count'])
      expect(await match(saved([other]), [7])).toEqual(['gpu-missing'])
      expect(await match(saved([other], 'Other 200'), [])).toEqual(['gpu-model'])
    } finally {
      double.set({ version: 12080 })
    }
    await expect(gpu.match(host, { version: 2, data: {} }, [])).rejects.toMatchObject({ code: 'FORMAT_UNSUPPORTED' })
  })

  test('asks the driver in a process that has devices in the order of their numbers, and is no client of MPS', async () => {
    await host.cuda.facts()
    const environments = children(process.pid).map((pid) => environment(pid).sort())
    expect(environments).toContainEqual(['CUDA_DEVICE_ORDER=PCI_BUS_ID', 'CUDA_MPS_PIPE_DIRECTORY=/nonexistent'])
  })

  test('checks what a machine has', async () => {
    const gpu = await load()
    const rows = async (): Promise<Record<string, readonly [data: string, problems: readonly string[]]>> =>
      Object.fromEntries((await gpu.check(host)).map(({ name, data, warnings, errors }) => [name, [data, [...warnings, ...errors]]]))
    expect(await rows()).toMatchObject({
      driver: ['570.86.15', []],
      CUDA: ['12.8', []],
      devices: ['2', []],
      'checkpoint API': ['available', []],
      'other devices': ['unavailable', [expect.stringContaining('580')]],
      memory: [expect.stringMatching(/^0.0 GiB needed, [\d.]+ GiB free$/), []],
    })
    double.set({ version: 12040, driver: '550.54.14' })
    expect(await rows()).toMatchObject({ 'checkpoint API': ['unavailable', [expect.stringContaining('570 or newer')]] })
    double.set({ version: 12080, driver: '570.86.15' })
    const none = { ...host, cuda: new CudaChild({ library: '/nowhere/libcuda.so.1', management: '', callTimeoutMs: 1000 }) }
    expect(await gpu.check(none)).toMatchObject([{ name: 'driver', data: 'missing', warnings: [expect.stringContaining('/nowhere')] }])
    none.cuda.close()
  })
})

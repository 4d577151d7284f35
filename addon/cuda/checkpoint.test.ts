import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { fakeGpu, type FakeGpu } from '../../test/support/gpu.js'
import { program } from '../../test/support/programs.js'
import { type CudaHandle, type CudaUse, native } from '../index.js'

const SUCCESS = 0
const [RUNNING, LOCKED, CHECKPOINTED, FAILED] = [0, 1, 2, 3]
const isRoot = process.getuid?.() === 0

describe.runIf(isRoot)('the checkpoint calls of the driver', () => {
  const parent = mkdtempSync(join(tmpdir(), 'cedana-cuda-'))
  const children: ChildProcess[] = []
  let gpu: FakeGpu
  let cuda: CudaHandle

  beforeAll(async () => {
    gpu = await fakeGpu(parent)
    gpu.set({ version: 13000, driver: '580.65.06' })
    const opened = await native.cudaOpen(gpu.library, gpu.library)
    expect(opened.result).toBe(SUCCESS)
    cuda = opened.cuda
  })
  afterEach(async () => {
    gpu.arm()
    gpu.set({ seed: 16, rate: 0, init: 0, nvml: 1, mps: 0, used: undefined })
    for (const child of children.splice(0)) {
      const ended = once(child, 'exit')
      if (child.kill('SIGKILL')) await ended
    }
  })
  afterAll(() => {
    rmSync(parent, { recursive: true })
  })

  /** A process of CUDA with 4 MiB of known contents on the device. */
  async function start(...mode: string[]): Promise<{ pid: number; says: (line: string) => Promise<void> }> {
    const child = spawn(await program('gpu'), [gpu.library, '1', '4', ...mode], { stdio: ['ignore', 'pipe', 'inherit'] })
    children.push(child)
    let said = ''
    child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()))
    const says = async (line: string): Promise<void> => {
      while (!said.split('\n').includes(line)) await once(child.stdout, 'data')
    }
    await says('READY')
    return { pid: child.pid ?? 0, says }
  }
  const state = async (pid: number): Promise<number> => (await native.cudaProcess(cuda, pid)).state
  const use = async (pid: number): Promise<CudaUse | undefined> => (await native.cudaUses(cuda))?.find((one) => one.pid === pid)
  const openNodes = (pid: number): string[] =>
    readdirSync(`/proc/${pid}/fd`)
      .map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
      .filter((path) => path.startsWith(join(gpu.dir, 'nvidia')))

  it('takes a process from running to checkpointed and back, with its memory', async () => {
    const { pid, says } = await start()
    const { restoreThread, ...rest } = await native.cudaProcess(cuda, pid)
    expect(rest).toEqual({ result: SUCCESS, state: RUNNING })
    expect(readFileSync(`/proc/${pid}/task/${restoreThread}/comm`, 'utf8')).toBe('fake-restore\n')
    expect(openNodes(pid)).toHaveLength(3)
    expect(await use(pid)).toEqual({ pid, bytes: 8 << 20, usesMps: false })

    expect(await native.cudaLock(cuda, pid, 1000)).toBe(SUCCESS)
    expect(await state(pid)).toBe(LOCKED)
    expect(await native.cudaCheckpoint(cuda, pid)).toBe(SUCCESS)
    expect(await state(pid)).toBe(CHECKPOINTED)
    expect(openNodes(pid)).toEqual([])
    expect(await use(pid)).toBeUndefined()
    expect(await native.cudaRestore(cuda, pid, [])).toBe(SUCCESS)
    expect(await state(pid)).toBe(LOCKED)
    expect(await native.cudaUnlock(cuda, pid)).toBe(SUCCESS)
    expect(await state(pid)).toBe(RUNNING)
    process.kill(pid, 'SIGUSR1')
    await says('PASS')
  })

  it('hands on what the driver answers', async () => {
    const { pid } = await start()
    expect(await native.cudaCheckpoint(cuda, pid)).toBe(401)
    expect(await native.cudaUnlock(cuda, pid)).toBe(401)
    expect((await native.cudaProcess(cuda, process.ppid)).result).toBe(3)
    expect((await native.cudaProcess(cuda, 999_999)).result).toBe(304)
    gpu.arm({ call: 1, mode: 'before', code: 304 })
    expect(await native.cudaLock(cuda, pid, 0)).toBe(304)
    expect(await state(pid)).toBe(RUNNING)
    expect(await native.cudaLock(cuda, pid, 0)).toBe(SUCCESS)
    gpu.arm({ call: 1, mode: 'lose' })
    expect(await native.cudaCheckpoint(cuda, pid)).toBe(999)
    expect(await state(pid)).toBe(FAILED)
  })

  it('gives a lock up after its time, when work on the device goes on', async () => {
    const { pid } = await start('spin', '2000')
    const before = Date.now()
    expect(await native.cudaLock(cuda, pid, 50)).toBe(600)
    expect(Date.now() - before).toBeLessThan(1500)
    expect(await state(pid)).toBe(RUNNING)
    expect(await native.cudaLock(cuda, pid, 20_000)).toBe(SUCCESS)
  })

  it('leaves JavaScript its thread while the driver copies', async () => {
    const { pid } = await start()
    gpu.set({ rate: 8 << 20 })
    await native.cudaLock(cuda, pid, 0)
    let ticks = 0
    const timer = setInterval(() => ticks++, 10)
    await native.cudaCheckpoint(cuda, pid)
    clearInterval(timer)
    expect(ticks).toBeGreaterThan(10)
  })

  it('maps devices onto others', async () => {
    const { pid } = await start()
    const from = (await native.cudaFacts(cuda)).devices.map(({ uuid }) => uuid)
    await native.cudaLock(cuda, pid, 0)
    await native.cudaCheckpoint(cuda, pid)
    gpu.set({ seed: 64 })
    const to = (await native.cudaFacts(cuda)).devices.map(({ uuid }) => uuid)
    expect(to).toEqual(['40'.repeat(16), '41'.repeat(16)])
    expect(await native.cudaRestore(cuda, pid, [])).toBe(1)
    gpu.arm()
    const crossed = [
      { from: from[0]!, to: to[1]! },
      { from: from[1]!, to: to[0]! },
    ]
    expect(await native.cudaRestore(cuda, pid, crossed.slice(1))).toBe(1)
    expect(await native.cudaRestore(cuda, pid, crossed)).toBe(SUCCESS)
    expect(gpu.calls()).toEqual([`restore ${pid} 11=40`, `restore ${pid} 10=41 11=40`])
  })

  it('knows driver and devices', async () => {
    expect(await native.cudaFacts(cuda)).toEqual({
      cudaVersion: 13000,
      driver: '580.65.06',
      hasCheckpoint: true,
      devices: [0, 1].map((minor) => ({ uuid: `1${minor}`.repeat(16), name: 'Double 100', totalBytes: 16 * 2 ** 30, minor })),
    })
  })

  it('knows clients of MPS, and what nobody tells of memory', async () => {
    const { pid } = await start()
    gpu.set({ mps: 1 })
    expect(await use(pid)).toEqual({ pid, bytes: 8 << 20, usesMps: true })
    gpu.set({ mps: 0, used: -1 })
    expect(await use(pid)).toEqual({ pid, bytes: null, usesMps: false })
  })

  it('says which library is not there, or is none of CUDA, and does without NVML', async () => {
    await expect(native.cudaOpen('/nowhere/libcuda.so.1', gpu.library)).rejects.toMatchObject({
      code: 'ENOENT',
      op: expect.stringContaining('/nowhere'),
    })
    await expect(native.cudaOpen('libc.so.6', gpu.library)).rejects.toMatchObject({ code: 'ENOEXEC' })
    const { cuda: alone } = await native.cudaOpen(gpu.library, '/nowhere/libnvidia-ml.so.1')
    expect(await native.cudaUses(alone)).toBeNull()
    expect(await native.cudaFacts(alone)).toMatchObject({ driver: '' })
    gpu.set({ init: 100 })
    expect((await native.cudaOpen(gpu.library, gpu.library)).result).toBe(100)
  })
})

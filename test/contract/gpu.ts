/** The conformance suite of the GPU contract, with every call of the driver failing in its turn. */
import { describe, expect, test } from 'vitest'
import type { CedanaError } from '../../src/plugins/contract/errors.js'
import type { Gpu, GpuManifest, GpuProcess } from '../../src/plugins/contract/gpu.js'
import type { Host } from '../../src/plugins/contract/host.js'
import type { Snapshot } from '../../src/plugins/contract/job.js'

export interface LiveGpuTree {
  snapshot(): Promise<Snapshot>
  /** Throws unless every process can use its device. */
  works(): Promise<void>
  stop(): Promise<void>
}

/** How a call of the driver fails: refused, it and the two after it; done and yet said to have failed; its process ends before or after it was done; it never ends. */
export type Fault = 'before' | 'thrice' | 'after' | 'abort' | 'abort-after' | 'hang'
/** By the number of processes. A driver that hangs or dies takes its time. */
const FAULTS: readonly { readonly count: number; readonly faults: readonly Fault[] }[] = [
  { count: 1, faults: ['before', 'after', 'abort', 'hang'] },
  { count: 2, faults: ['before', 'thrice', 'after', 'abort-after'] },
  { count: 3, faults: ['before', 'after'] },
]

/** What the suite needs of the outside: trees on a device whose driver fails when it is told to. */
export interface GpuWorld {
  readonly host: Host
  load(): Promise<Gpu>
  start(processes: number): Promise<LiveGpuTree>
  /** A tree that uses no device. */
  stranger(): Promise<LiveGpuTree>
  arm(fault?: { readonly call: number; readonly fault: Fault }): void
  /** Calls of the driver since `arm`. */
  calls(): number
}

export function gpuContract(manifest: GpuManifest, makeWorld: () => GpuWorld): void {
  describe(`gpu ${manifest.name}`, () => {
    test('has a manifest that is frozen data', () => {
      expect(Object.isFrozen(manifest)).toBe(true)
      expect(manifest.name).toMatch(/^[a-z][a-z0-9-]*$/)
      expect(manifest.summary).not.toBe('')
    })

    test('finds the processes that use a device, and changes nothing', async () => {
      const { host, load, start, stranger } = makeWorld()
      const gpu = await load()
      const none = await stranger()
      const tree = await start(2)
      try {
        expect((await gpu.find(host, await none.snapshot(), false)).processes).toEqual([])
        expect((await gpu.find(host, await none.snapshot(), true)).processes).toEqual([])
        const snapshot = await tree.snapshot()
        const { processes, problems, saved } = await gpu.find(host, snapshot, false)
        expect(problems).toEqual([])
        expect(processes.map(({ target }) => target.pid)).toEqual(snapshot.processes.map(({ pid }) => pid))
        expect(JSON.parse(JSON.stringify(saved))).toEqual(saved)
        expect(await gpu.match(host, saved, [])).toEqual({ devices: [], problems: [] })
        expect(await gpu.waiting(host, snapshot, saved)).toEqual(processes)
        await gpu.release(host, processes, [])
        await tree.works()
      } finally {
        await Promise.all([none.stop(), tree.stop()])
      }
    })

    test('takes what is on devices away, and gives it back', async () => {
      const { host, load, start } = makeWorld()
      const gpu = await load()
      const tree = await start(2)
      try {
        const { processes } = await gpu.find(host, await tree.snapshot(), false)
        await expect(gpu.mustBeGone(host, await tree.snapshot())).rejects.toMatchObject({ code: 'TARGET_UNFIT' })
        await gpu.lock(host, processes)
        await gpu.checkpoint(host, processes)
        await gpu.mustBeGone(host, await tree.snapshot())
        await gpu.release(host, processes, [])
        await tree.works()
      } finally {
        await tree.stop()
      }
    })

    test('lets those be that are gone', async () => {
      const { host, load, start } = makeWorld()
      const gpu = await load()
      const tree = await start(1)
      const { processes } = await gpu.find(host, await tree.snapshot(), false)
      await gpu.lock(host, processes)
      await tree.stop()
      await gpu.release(host, processes, [])
    })

    test.each(FAULTS)('leaves $count processes running, whichever call fails: $faults', { timeout: 120_000 }, async ({ count, faults }) => {
      const { host, load, start, arm, calls } = makeWorld()
      const gpu = await load()
      const tree = await start(count)
      /** As a dump does it: whatever was thrown, `release` comes last. */
      const round = async (): Promise<CedanaError | undefined> => {
        let found: readonly GpuProcess[] = []
        try {
          const { processes, problems } = await gpu.find(host, await tree.snapshot(), false)
          if (problems.length > 0) throw Object.assign(new Error(problems[0]?.message), { code: 'TARGET_UNFIT' })
          found = processes
          await gpu.lock(host, processes)
          await gpu.checkpoint(host, processes)
          return undefined
        } catch (thrown) {
          return thrown as CedanaError
        } finally {
          await gpu.release(host, found, [])
        }
      }
      try {
        arm()
        expect(await round()).toBeUndefined()
        const total = calls()
        for (const fault of faults) {
          for (let call = 1; call <= total; call++) {
            arm({ call, fault })
            const failure = await round()
            const title = `call ${call} of ${total}: ${fault}`
            expect(calls(), title).toBeGreaterThanOrEqual(call)
            // What `find`, `lock` and `checkpoint` do fails with it.
            if (call <= 4 * count) expect(failure?.code, title).toMatch(/^(GPU_FAILED|TARGET_UNFIT|HOST_UNFIT)$/)
            else expect(failure, title).toBeUndefined()
            await tree.works().catch((cause: unknown) => {
              throw new Error(`${title}: a process does not work any more`, { cause })
            })
          }
        }
      } finally {
        arm()
        await tree.stop()
      }
    })
  })
}

/** Jobs that use a GPU, which is a double of the driver: dump, run on, restore, elsewhere and in streams; and what is refused. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { gpuJob, useGpuWorld } from '../support/gpu.js'

const { world, gpu } = useGpuWorld()
afterEach(() => {
  gpu().arm()
  gpu().set({ version: 12080, driver: '570.86.15', devices: 2, seed: 16, rate: 0, init: 0, nvml: 1, name: 'Double 100' })
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
    await world.ok(['restore', 'job', job.jid])
    expect(verbs()).toEqual([...Array<string>(processes).fill('restore'), ...Array<string>(processes).fill('unlock')])
    expect((await world.row(job.jid))?.[4]).toBe('yes')
    await job.works()
    await job.verify()
  })
})

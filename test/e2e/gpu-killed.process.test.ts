/** The daemon is killed with SIGKILL around each step that touches a device. The next one lets what was left without its device go on. */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { gpuJob, useGpuWorld } from '../support/gpu.js'
import { useMortalDaemon } from '../support/mortal-daemon.js'
import { isAlive } from '../support/processes.js'
import { until } from '../support/wait.js'

const { world, gpu } = useGpuWorld({ withoutDaemon: true })
const daemon = useMortalDaemon(world)
const noNotes = (): Promise<unknown> => until('nothing is noted any more', () => readdirSync(join(world.runDir, 'gpu')).length === 0)

test.each(['note gpu', 'lock gpu', 'copy from gpu', 'criu dump', 'flush pages', 'seal'])('after the step `%s` of dump', async (step) => {
  const job = await gpuJob(world, gpu(), 2)
  const name = `killed-${step.replaceAll(' ', '-')}`
  await daemon.killAfter('dump', step, ['dump', 'job', job.jid, '--name', name])
  await job.works()
  await noNotes()
  expect((await world.row(job.jid))?.[4]).toBe('yes')
  await job.verify()
})

test('after the step `copy to gpu` of a dump that runs on', async () => {
  const job = await gpuJob(world, gpu())
  await daemon.killAfter('dump', 'copy to gpu', ['dump', 'job', job.jid, '--leave-running'])
  await job.works()
  await noNotes()
  await job.verify()
})

test.each(['note gpu', 'criu restore', 'copy to gpu'])('after the step `%s` of restore', async (step) => {
  const job = await gpuJob(world, gpu(), 2)
  await world.dump(job)
  await daemon.killAfter('restore', step, ['restore', 'job', job.jid])
  await noNotes()
  if (!isAlive(job.pid)) await world.quick(['restore', 'job', job.jid])
  await job.works()
  await job.verify()
})

test('that were restored and are nobody`s job', async () => {
  const job = await gpuJob(world, gpu())
  const path = await world.dump(job)
  await daemon.killAfter('restore', 'criu restore', ['restore', 'process', '--path', path])
  await noNotes()
  if (isAlive(job.pid)) await job.works()
  expect(existsSync(path)).toBe(true)
})

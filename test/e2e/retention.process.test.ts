/** Old checkpoints of a job go when it has newer ones, and never the only one that is whole. */
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { type Job, useWorld } from '../support/world.js'

const world = useWorld()

const kept = async ({ jid }: Job): Promise<string[]> =>
  (JSON.parse((await world.ok(['checkpoints', jid, '-o', 'json'])).stdout) as { path: string }[]).map(({ path }) => path)
const dump = (job: Job, ...flags: string[]): Promise<string> => world.dump(job, ['--leave-running', ...flags])

describe('--keep-last', () => {
  test('removes what is older, whatever it is stored as; not said, nothing', async () => {
    const job = await world.job('counter')
    const [first, second] = [await dump(job), await dump(job, '--compression', 'zstd')]
    const third = await dump(job, '--streams', '2', '--compression', 'lz4')
    expect(await kept(job)).toEqual([third, second, first])

    const { stdout } = await world.quick(['dump', 'job', job.jid, '--leave-running', '--keep-last', '2'])
    const fourth = /^Dumped to (.+)$/m.exec(stdout)?.[1] ?? ''
    expect(stdout.split('\n')).toEqual([
      `Removed older checkpoint ${second}`,
      `Removed older checkpoint ${first}`,
      `Dumped to ${fourth}`,
      '',
    ])
    expect(await kept(job)).toEqual([fourth, third])
    expect([first, second, third, fourth].map(existsSync)).toEqual([false, false, true, true])

    const last = await world.dump(job, ['--keep-last', '1'])
    expect(await kept(job)).toEqual([last])
    expect(readdirSync(world.checkpoints).filter((name) => name.includes(job.jid))).toHaveLength(1)
    await world.quick(['restore', 'job', job.jid])
    await world.quick(['kill', job.jid])
  })

  test('by configuration, which a flag overrules; other jobs, and checkpoints of no job, are left alone', async () => {
    const [one, other] = [await world.job('counter'), await world.job('counter')]
    const others = [await dump(other), await dump(other)]
    await dump(one)
    const config = ['--config', '{"checkpoint":{"keep_last":1}}']
    const second = await dump(one)
    expect(await kept(one)).toHaveLength(2)
    await world.stopDaemon()
    await world.startDaemon(config)
    const third = await dump(one, '--keep-last', '0')
    expect(await kept(one)).toHaveLength(3)
    const fourth = await dump(one)
    expect(await kept(one)).toEqual([fourth])
    expect([second, third].map(existsSync)).toEqual([false, false])
    expect(await kept(other)).toEqual([...others].reverse())
    await world.stopDaemon()
    await world.startDaemon()
    await world.quick(['kill', one.jid, other.jid])
  })

  test('never removes the only whole one: not for a dump that fails, nor for those whose files are gone', async () => {
    const job = await world.job('counter')
    const good = await dump(job)
    await world.fails(['dump', 'job', job.jid, '--keep-last', '1', '--name', 'x', '--dir', '/nonexistent'])
    await world.fails(['dump', 'job', job.jid, '--keep-last', '1', '--criu-opts', '{"no_such": 1}'])
    await world.fails(['dump', 'job', job.jid, '--keep-last', '-1'])
    expect(existsSync(good)).toBe(true)
    const gone = await dump(job)
    rmSync(gone, { recursive: true })
    // Two of three are to stay, and one of those there were is no more.
    const newest = await dump(job, '--keep-last', '2')
    expect([good, newest].map(existsSync)).toEqual([true, true])
    await world.quick(['kill', job.jid])
  })

  test('of two that were made at one path, what is there now is the newer one and stays', async () => {
    const job = await world.job('counter')
    const path = await dump(job, '--name', `again-${job.jid}`)
    const [{ id: older = '' } = {}] = JSON.parse((await world.ok(['checkpoints', job.jid, '-o', 'json'])).stdout) as { id?: string }[]
    rmSync(path, { recursive: true })
    await dump(job, '--name', `again-${job.jid}`)
    await world.ok(['checkpoint', 'delete', older])
    expect(existsSync(path)).toBe(true)
    const newest = await dump(job, '--keep-last', '2')
    expect(await kept(job)).toEqual([newest, path])
    await world.quick(['checkpoint', 'verify', path])
    await world.quick(['kill', job.jid])
  })
})

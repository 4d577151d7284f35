/** Dump and restore of a container of containerd, against what its own command does, on the same disk and with the same CRIU. */
import { copyFileSync, mkdirSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { TestContainerd } from '../../test/support/own-containerd.js'
import { inTurns, syncMs, timed } from '../measure.js'
import type { Row } from '../report.js'
import { built, cedana, residentMiB, type World } from '../world.js'

const MIB = 256

export async function dumpAndRestoreContainerd(world: World, rounds: number): Promise<Row[]> {
  const surroundings = { dir: world.dir, id: `b${process.pid}`, mark: `CEDANA_BENCH=${process.pid}` }
  const containerd = new TestContainerd(surroundings, { path: dirname(world.criu) })
  await containerd.open()
  const root = join(world.dir, 'image')
  mkdirSync(root)
  copyFileSync(await built(world, 'touch', ['-static']), join(root, 'touch'))
  const image = await containerd.image('memory', [root], {})
  const id = containerd.id('memory')
  const [images, work] = [join(world.dir, 'ctr-images'), join(world.dir, 'ctr-work')]
  const drop = (path: string): void => rmSync(path, { recursive: true, force: true })
  const ctr = async (...args: readonly string[]): Promise<number> =>
    (await timed(['ctr', '--address', containerd.address, '--namespace', containerd.namespace, ...args])).ms
  try {
    await ctr('run', '--detach', image, id, '/touch', String(MIB), 'random')
    const pid = (await containerd.task(id))?.pid ?? 0
    while (residentMiB(pid) < MIB) await sleep(50)
    const ctrDump = (): Promise<number> => {
      for (const path of [images, work]) drop(path)
      for (const path of [images, work]) mkdirSync(path)
      return ctr('tasks', 'checkpoint', '--image-path', images, '--work-path', work, id)
    }
    const dumps = await inTurns(rounds, {
      ctr: ctrDump,
      synced: async () => (await ctrDump()) + (await syncMs(images)),
      cedana: async () => {
        drop(join(world.dir, 'checkpoints/ours'))
        return (await cedana(world, 'dump', 'containerd', id, '--leave-running', '--name', 'ours', ...containerd.flags)).ms
      },
      // What each command takes that starts, has the daemon ask containerd, and ends.
      asking: async () => (await cedana(world, 'query', 'containerd', id, ...containerd.flags)).ms,
    })
    // Its own restore takes what is in containerd's store only.
    await ctr('containers', 'checkpoint', '--task', id, 'test.local/checkpoint:1')
    const end = async (): Promise<void> => {
      await containerd.remove(id)
      while (await containerd.task(id)) await sleep(20)
    }
    await end()
    const restores = await inTurns(rounds, {
      ctr: async () => {
        const ms = await ctr('containers', 'restore', '--live', id, 'test.local/checkpoint:1')
        await end()
        return ms
      },
      cedana: async () => {
        const { ms } = await cedana(world, 'restore', 'containerd', '--path', join(world.dir, 'checkpoints/ours'))
        await end()
        return ms
      },
    })
    const row = (what: string, ours: readonly number[], peer: readonly number[], rest: Partial<Row> = {}): Row => ({
      what: `${what}, ${MIB} MiB`,
      ours,
      peer,
      peerName: 'ctr',
      unit: 'ms',
      ...rest,
    })
    const sum = (a: readonly number[], b: readonly number[]): number[] => a.map((ms, index) => ms + (b[index] ?? 0))
    const both = sum(dumps.cedana, restores.cedana)
    const commands = sum(dumps.asking, dumps.asking)
    const onDisk = sum(dumps.synced, restores.ctr)
    return [
      row('dump containerd', dumps.cedana, dumps.ctr),
      row('restore containerd', restores.cedana, restores.ctr),
      row('dump and restore containerd', both, sum(dumps.ctr, restores.ctr), { target: 1.1 }),
      row('dump and restore containerd, on the disk', both, onDisk, { peerName: 'ctr, sync' }),
      row('dump and restore containerd, by two of our commands', both, sum(onDisk, commands), { peerName: 'ctr, sync, 2 × cedana query' }),
    ]
  } finally {
    await containerd.close()
  }
}

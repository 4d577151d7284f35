/** Dump and restore of a container, against what runc does by itself, on the same disk and with the same CRIU. */
import { copyFileSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { Containers } from '../../test/support/oci.js'
import { inTurns, syncMs, timed } from '../measure.js'
import type { Row } from '../report.js'
import { built, cedana, residentMiB, type World } from '../world.js'

const MIB = 512

export async function dumpAndRestoreContainer(world: World, rounds: number): Promise<Row[]> {
  const containers = new Containers({ dir: world.dir, id: `b${process.pid}`, mark: `CEDANA_BENCH=${process.pid}` })
  containers.open()
  const container = containers.container('memory', { args: ['/touch', String(MIB), 'random'] })
  copyFileSync(await built(world, 'touch', ['-static']), join(container.bundle, 'rootfs/touch'))
  const checkpoints = join(world.dir, 'checkpoints')
  const [images, work] = [join(world.dir, 'runc-images'), join(world.dir, 'runc-work')]
  const env = { ...process.env, PATH: `${dirname(world.criu)}:${process.env['PATH'] ?? ''}` }
  const runc = (...args: readonly string[]) => timed(['runc', '--root', containers.root, ...args], env)
  const drop = (path: string): void => rmSync(path, { recursive: true, force: true })
  const pidFile = join(world.dir, 'pid')
  const ours = ['--root', containers.root] as const

  // With a file of the host for its output runc could not dump it.
  const detached = async (verb: string, ...args: readonly string[]): Promise<number> => {
    const command = ['runc', '--root', containers.root, verb, '--bundle', container.bundle, '--detach', '--pid-file', pidFile, ...args]
    const nowhere = 'exec "$@" >/dev/null 2>&1 </dev/null'
    return (await timed(['sh', '-c', nowhere, 'sh', ...command, container.id], env)).ms
  }
  await detached('run')
  const pid = Number(readFileSync(pidFile, 'utf8'))
  while (residentMiB(pid) < MIB) await new Promise((resolve) => setTimeout(resolve, 50))
  const runcDump = async (): Promise<number> => {
    drop(images)
    mkdirSync(images)
    return (await runc('checkpoint', '--leave-running', '--image-path', images, '--work-path', work, container.id)).ms
  }
  const dumps = await inTurns(rounds, {
    runc: runcDump,
    synced: async () => (await runcDump()) + (await syncMs(images)),
    cedana: async () => {
      drop(join(checkpoints, 'ours'))
      return (await cedana(world, 'dump', 'runc', container.id, '--leave-running', '--name', 'ours', ...ours)).ms
    },
  })
  const end = async (): Promise<void> => {
    await containers.command('kill', container.id, 'KILL')
    // The daemon may have removed what it restored before anybody sees it stopped.
    while ((await container.state())?.status === 'running') await new Promise((resolve) => setTimeout(resolve, 20))
    await container.remove()
  }
  await end()
  const restores = await inTurns(rounds, {
    runc: async () => {
      const ms = await detached('restore', '--image-path', images, '--work-path', work)
      await end()
      return ms
    },
    cedana: async () => {
      const { ms } = await cedana(world, 'restore', 'runc', '--path', join(checkpoints, 'ours'), '--bundle', container.bundle, ...ours)
      await end()
      return ms
    },
  })
  drop(join(checkpoints, 'ours'))
  await containers.close()
  const row = (what: string, ours: number[], peer: number[], rest: Partial<Row>): Row => ({
    what: `${what}, ${MIB} MiB`,
    ours,
    peer,
    peerName: 'runc',
    unit: 'ms',
    ...rest,
  })
  return [
    row('dump runc', dumps.cedana, dumps.runc, { target: 1.05 }),
    row('dump runc, on the disk', dumps.cedana, dumps.synced, { peerName: 'runc, sync' }),
    row('restore runc', restores.cedana, restores.runc, { target: 1.05 }),
  ]
}

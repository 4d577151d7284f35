/** Dump and restore of a process, against plain CRIU on the same disk. */
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { inTurns, median, quietWorkload, syncMs, timed } from '../measure.js'
import type { Row } from '../report.js'
import { built, cedana, pidFree, type World } from '../world.js'

const noSwitches = {
  tcpEstablished: undefined,
  fileLocks: undefined,
  shellJob: undefined,
  linkRemap: undefined,
  external: [],
  criuOpts: '',
} as const

export interface ProcessScenario {
  readonly name: string
  readonly mib: number
  readonly rounds: number
}

/** Milliseconds between request and reply, without the start of the command line. */
async function request<T>(work: () => Promise<T>): Promise<number> {
  const started = process.hrtime.bigint()
  await work()
  return Number(process.hrtime.bigint() - started) / 1e6
}

export async function dumpAndRestore(world: World, { name, mib, rounds }: ProcessScenario): Promise<Row[]> {
  const child = await quietWorkload([await built(world, 'touch'), String(mib), 'random'], join(world.dir, `${name}.log`))
  const { pid } = child
  const images = join(world.dir, 'peer')
  const checkpoints = join(world.dir, 'checkpoints')
  const fresh = (): void => {
    rmSync(images, { recursive: true, force: true })
    mkdirSync(images)
  }
  const dumpArguments = ['dump', 'process', String(pid), '--dir', checkpoints, '--name', 'ours'] as const
  const dumpRequest = {
    jid: '',
    type: 'process',
    target: { pid },
    options: {},
    dir: checkpoints,
    name: 'ours',
    compression: 'none',
    level: undefined,
    streams: 0,
    keepLast: 0,
    leaveRunning: false,
    skipInFlight: undefined,
    dryRun: false,
    timeoutMs: 0,
    withState: false,
    ...noSwitches,
  }
  const dropOurs = (): void => {
    rmSync(join(checkpoints, 'ours'), { recursive: true, force: true })
  }
  // Every dump ends the process; CRIU brings it back from the first of them.
  const seed = join(world.dir, `${name}-seed`)
  mkdirSync(seed)
  const criuDump = async (directory: string): Promise<number> =>
    (await timed([world.criu, 'dump', '-t', String(pid), '-D', directory, '-o', 'dump.log'])).ms
  const criuRestore = async (directory: string): Promise<number> =>
    (await timed([world.criu, 'restore', '-d', '-D', directory, '-o', 'restore.log'])).ms
  const revived = async <T>(dump: () => Promise<T>): Promise<T> => {
    const result = await dump()
    await pidFree(pid)
    await criuRestore(seed)
    return result
  }
  await revived(() => criuDump(seed))
  const dumps = await inTurns(rounds, {
    criu: () => {
      fresh()
      return revived(() => criuDump(images))
    },
    synced: () => {
      fresh()
      return revived(async () => (await criuDump(images)) + (await syncMs(images)))
    },
    command: async () => {
      dropOurs()
      return (await revived(() => cedana(world, ...dumpArguments))).ms
    },
    daemon: () => {
      dropOurs()
      return revived(() => request(() => world.engine.dump(dumpRequest)))
    },
  })

  // Restores: both from a checkpoint that is in the page cache, each process ended and reaped before the next round.
  dropOurs()
  await world.engine.dump(dumpRequest)
  await pidFree(pid)
  const end = async (): Promise<void> => {
    process.kill(pid, 'SIGKILL')
    await pidFree(pid)
  }
  const restoreRequest = {
    jid: '',
    type: 'process',
    path: join(checkpoints, 'ours'),
    options: {},
    stdio: undefined,
    waitAttach: false,
    log: '',
    pidFile: '',
    tcpClose: undefined,
    leaveStopped: undefined,
    gpus: [],
    dryRun: false,
    timeoutMs: 0,
    withState: false,
    windowSize: undefined,
    ...noSwitches,
  }
  const restores = await inTurns(rounds, {
    criu: async () => {
      const ms = await criuRestore(seed)
      await end()
      return ms
    },
    command: async () => {
      const { ms } = await cedana(world, 'restore', 'process', '--path', join(checkpoints, 'ours'))
      await end()
      return ms
    },
    daemon: async () => {
      const ms = await request(() => world.engine.restore(restoreRequest))
      await end()
      return ms
    },
  })
  dropOurs()
  for (const directory of [images, seed]) rmSync(directory, { recursive: true, force: true })
  const small = mib < 64
  const node = small ? median((await inTurns(rounds, { node: async () => (await timed([process.execPath, '-e', '0'])).ms })).node) : 0
  const row = (what: string, ours: number[], peer: number[], rest: Partial<Row> = {}): Row => ({
    what: `${what}, ${mib} MiB`,
    ours,
    peer,
    peerName: 'criu',
    unit: 'ms',
    ...rest,
  })
  return small
    ? [
        row('dump process, request to reply', dumps.daemon, dumps.criu, { target: 1.3 }),
        row('dump process, whole command', dumps.command, dumps.criu, { target: 1.3, allowance: 2 * node }),
        row('restore process, request to reply', restores.daemon, restores.criu, { target: 1.3 }),
        row('restore process, whole command', restores.command, restores.criu, { target: 1.3, allowance: 2 * node }),
      ]
    : [
        row('dump process', dumps.command, dumps.criu, { target: 1.1 }),
        row('dump process, on the disk', dumps.command, dumps.synced, { peerName: 'criu, sync' }),
        row('dump process, on the disk, request to reply', dumps.daemon, dumps.synced, { peerName: 'criu, sync' }),
        row('restore process', restores.command, restores.criu, { target: 1.1 }),
        row('restore process, request to reply', restores.daemon, restores.criu),
      ]
}

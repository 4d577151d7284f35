/** Where the images go: how long the target stands still, how long it all takes, and what it costs the daemon. */
import { once } from 'node:events'
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { readImage, STATS } from '../../src/daemon/images/criu-images.js'
import { inTurns, processorMs, quietWorkload, timed, workload } from '../measure.js'
import type { Row } from '../report.js'
import { built, cedana, loopDelayMs, peakMiB, pidFree, resetPeak, type World } from '../world.js'

const GIB = 1024
const DATA = ['random', 'half', 'sparse'] as const
type Data = (typeof DATA)[number]

/** One target, and the peers beside it. */
class Target {
  readonly images: string
  readonly checkpoints: string
  readonly #seed: string

  private constructor(
    private readonly world: World,
    readonly pid: number,
  ) {
    this.images = join(world.dir, 'peer')
    this.checkpoints = join(world.dir, 'checkpoints')
    this.#seed = join(world.dir, 'seed')
  }

  static async start(world: World, data: Data, mib = GIB): Promise<Target> {
    const { pid } = await quietWorkload([await built(world, 'touch'), String(mib), data], join(world.dir, `${data}-${mib}.log`))
    return new Target(world, pid)
  }

  async end(): Promise<void> {
    process.kill(this.pid, 'SIGKILL')
    await pidFree(this.pid)
    this.drop()
  }

  drop(): void {
    for (const name of ['ours', 'ours.tar.lz4', 'ours.tar.zst']) rmSync(join(this.checkpoints, name), { recursive: true, force: true })
    for (const path of [this.images, `${this.images}.tar`]) rmSync(path, { recursive: true, force: true })
  }

  /** Milliseconds that the target stood still. */
  async ours(...flags: string[]): Promise<number> {
    this.drop()
    const result = join(this.world.dir, 'result.json')
    await this.dump('--leave-running', '--result-file', result, ...flags)
    return (JSON.parse(readFileSync(result, 'utf8')) as { frozenUs: number }).frozenUs / 1000
  }

  dump(...flags: string[]): Promise<{ ms: number }> {
    return cedana(this.world, 'dump', 'process', String(this.pid), '--dir', this.checkpoints, '--name', 'ours', ...flags)
  }

  async criu(...flags: string[]): Promise<{ readonly ms: number; readonly frozenMs: number }> {
    const { ms } = await timed([this.world.criu, 'dump', '-t', String(this.pid), '-D', this.images, '-o', 'dump.log', ...flags])
    const [stats] = readImage(STATS, 'stats-dump', readFileSync(join(this.images, 'stats-dump')))
    return { ms, frozenMs: (stats?.dump?.frozen_time ?? NaN) / 1000 }
  }

  fresh(): void {
    this.drop()
    mkdirSync(this.images)
  }

  /** The same dump, stored nowhere. */
  async limit(): Promise<number> {
    this.fresh()
    const streamer = await workload([await built(this.world, 'null-streamer'), this.images])
    const ended = once(streamer, 'exit')
    const { frozenMs } = await this.criu('--leave-running', '--stream')
    await ended
    return frozenMs
  }

  async plain(): Promise<number> {
    this.fresh()
    return (await this.criu('--leave-running')).frozenMs
  }

  /** A dump by CRIU, and its directory packed. */
  async thenPacked(command: string): Promise<number> {
    this.fresh()
    const { ms } = await this.criu()
    return ms + (await timed(['sh', '-c', `tar -C ${this.images} -cf - . | ${command} > ${this.images}.tar && sync ${this.images}.tar`])).ms
  }

  /** What the processors did meanwhile is added to `processor`. */
  async packed(processor: number[], ...flags: string[]): Promise<number> {
    this.drop()
    const before = processorMs()
    const { ms } = await this.dump(...flags)
    processor.push(processorMs() - before)
    return ms
  }

  /** After a dump that ends the target it comes back from the first one. */
  async revived<T>(dump: () => Promise<T>): Promise<T> {
    const result = await dump()
    await pidFree(this.pid)
    await this.restore(this.#seed)
    return result
  }

  async seed(): Promise<void> {
    mkdirSync(this.#seed)
    await this.revived(() => timed([this.world.criu, 'dump', '-t', String(this.pid), '-D', this.#seed, '-o', 'dump.log']))
  }

  restore(images: string): Promise<{ ms: number }> {
    return timed([this.world.criu, 'restore', '-d', '-D', images, '-o', 'restore.log'])
  }
}

export async function frozenTime(world: World, rounds: number): Promise<Row[]> {
  const rows: Row[] = []
  for (const data of DATA) {
    const target = await Target.start(world, data)
    const frozen = await inTurns(rounds, {
      criu: () => target.plain(),
      limit: () => target.limit(),
      ours: () => target.ours(),
      packed: () => target.ours('--compression', 'lz4'),
    })
    await target.end()
    const what = `frozen, 1 GiB ${data}, left running`
    rows.push(
      { what: `${what}, to disk`, ours: frozen.ours, peer: frozen.criu, peerName: 'criu', unit: 'ms', target: 0.45 },
      { what: `${what}, against the limit`, ours: frozen.ours, peer: frozen.limit, peerName: 'to /dev/null', unit: 'ms', target: 1.6 },
      { what: `${what}, lz4`, ours: frozen.packed, peer: frozen.criu, peerName: 'criu', unit: 'ms', target: 0.45 },
    )
  }
  return rows
}

export async function packedDumps(world: World, rounds: number): Promise<Row[]> {
  const target = await Target.start(world, 'half')
  await target.seed()
  const [lz4, zstd]: [number[], number[]] = [[], []]
  const dumps = await inTurns(rounds, {
    lz4: () => target.revived(() => target.packed(lz4, '--compression', 'lz4')),
    tarLz4: () => target.revived(() => target.thenPacked('lz4 -q')),
    zstd: () => target.revived(() => target.packed(zstd, '--compression', 'zstd', '--level', '1', '--streams', '2')),
    tarZstd: () => target.revived(() => target.thenPacked('zstd -q -1 -T2')),
  })
  await target.end()
  const row = (what: string, ours: readonly number[], peer: readonly number[], peerName: string, target?: number): Row => ({
    what: `dump to ${what}, 1 GiB half`,
    ours,
    peer,
    peerName,
    unit: 'ms',
    ...(target === undefined ? {} : { target }),
  })
  const ALL = 'processor time, all cores'
  return [
    row('lz4', dumps.lz4, dumps.tarLz4, 'criu, tar | lz4', 0.6),
    row('lz4, against what it computes', dumps.lz4, lz4.slice(1), ALL),
    row('zstd -1 in 2 streams', dumps.zstd, dumps.tarZstd, 'criu, tar | zstd -1 -T2', 0.9),
    row('zstd -1 in 2 streams, against what it computes', dumps.zstd, zstd.slice(1), ALL),
  ]
}

export async function packedRestores(world: World, rounds: number): Promise<Row[]> {
  const target = await Target.start(world, 'half')
  await target.seed()
  await target.revived(() => target.thenPacked('lz4 -q'))
  const unpacked = `${target.images}-unpacked`
  const dump = (name: string, ...flags: string[]) =>
    cedana(world, 'dump', 'process', String(target.pid), '--dir', target.checkpoints, '--name', name, ...flags)
  await target.revived(() => dump('shards', '--compression', 'lz4', '--streams', '2'))
  await target.revived(() => dump('packed', '--compression', 'lz4'))
  await target.revived(() => dump('dense', '--compression', 'zstd'))
  await dump('plain')
  await pidFree(target.pid)
  const processor: number[] = []
  const ended = async (work: () => Promise<{ ms: number }>): Promise<number> => {
    const { ms } = await work()
    process.kill(target.pid, 'SIGKILL')
    await pidFree(target.pid)
    return ms
  }
  const ours = (name: string) => cedana(world, 'restore', 'process', '--path', join(target.checkpoints, name))
  const restores = await inTurns(rounds, {
    shards: () =>
      ended(async () => {
        const before = processorMs()
        const restored = await ours('shards')
        processor.push(processorMs() - before)
        return restored
      }),
    unpacked: async () => {
      rmSync(unpacked, { recursive: true, force: true })
      mkdirSync(unpacked)
      const { ms } = await timed(['sh', '-c', `lz4 -dcq ${target.images}.tar | tar -C ${unpacked} -xf -`])
      return ms + (await ended(() => target.restore(unpacked)))
    },
    packed: () => ended(() => ours('packed.tar.lz4')),
    dense: () => ended(() => ours('dense.tar.zst')),
    plain: () => ended(() => ours('plain')),
    criu: () => ended(() => target.restore(target.images)),
  })
  for (const name of ['shards', 'packed.tar.lz4', 'dense.tar.zst', 'plain'])
    rmSync(join(target.checkpoints, name), { recursive: true, force: true })
  rmSync(unpacked, { recursive: true, force: true })
  target.drop()
  const row = (what: string, ours: readonly number[], peer: readonly number[], peerName: string, target?: number): Row => ({
    what: `restore ${what}, 1 GiB half`,
    ours,
    peer,
    peerName,
    unit: 'ms',
    ...(target === undefined ? {} : { target }),
  })
  return [
    row('from 2 lz4 shards', restores.shards, restores.unpacked, 'lz4 -d | tar, criu', 0.7),
    row('from 2 lz4 shards, against what it computes', restores.shards, processor.slice(1), 'processor time, all cores'),
    row('from an lz4 archive', restores.packed, restores.unpacked, 'lz4 -d | tar, criu'),
    row('from a zstd archive', restores.dense, restores.unpacked, 'lz4 -d | tar, criu'),
    row('without compression', restores.plain, restores.criu, 'criu', 1.1),
  ]
}

/** What a dump costs the daemon itself. */
export async function daemonLoad(world: World, rounds: number): Promise<Row[]> {
  const small = await Target.start(world, 'random')
  const delays: number[] = []
  for (let round = 0; round < rounds; round++) {
    await loopDelayMs(world)
    await small.ours('--streams', '2', '--compression', 'lz4')
    delays.push(await loopDelayMs(world))
  }
  await small.end()
  const large = await Target.start(world, 'random', 4 * GIB)
  const peaks: number[] = []
  for (const flags of [[], ['--streams', '2'], ['--compression', 'lz4']]) {
    resetPeak(world.daemon.pid)
    await large.ours(...flags)
    peaks.push(peakMiB(world.daemon.pid))
  }
  await large.end()
  return [
    { what: 'event loop of the daemon, 1 GiB to lz4 shards, p99 of the delay', ours: delays, unit: 'ms', limit: 20 },
    { what: 'peak of the daemon, 4 GiB, limit 512 MiB', ours: [Math.max(...peaks)], unit: 'MiB', limit: 650 },
  ]
}

/** What any dump on this machine is bound by, in the ways that there are to move 1 GiB. */
export async function limits(world: World, rounds: number): Promise<Row[]> {
  const program = await built(world, 'limits', ['-pthread'])
  const times = new Map<string, number[]>()
  for (let round = 0; round < rounds; round++) {
    const { stdout } = await timed([program, String(GIB)])
    for (const line of stdout.trim().split('\n')) {
      const [name = '', ms] = line.split('\t')
      times.set(name, [...(times.get(name) ?? []), Number(ms)])
    }
  }
  return [...times].map(([name, ms]) => ({ what: `limit, 1 GiB: ${name}`, ours: ms, unit: 'ms' }))
}

/** A disk that is full while a container is dumped or restored: said in one line, and everything as it was. */
import { closeSync, existsSync, openSync, readdirSync, readFileSync, rmSync, statfsSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { TestContainerd, useContainerd } from '../support/containerd.js'
import { until } from '../support/wait.js'
import { type Outcome, useWorld, type World } from '../support/world.js'

const world = useWorld()
const containerd = useContainerd(world)

const COUNTER = 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done'
const MIB = 2 ** 20
const count = (jid: string): number => readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8').split('\n').length

/** A counter as a job, with so much in its writable layer that does not compress. */
async function counting(of: World, at: TestContainerd, word: string, mebibytes: number): Promise<string> {
  const jid = of.jid(word)
  await of.quick(['run', 'containerd', await at.busybox(), '--jid', jid, ...at.flags, '--', 'sh', '-c', COUNTER])
  if (mebibytes > 0) await at.exec(jid, 'sh', '-c', `head -c ${mebibytes * MIB} /dev/urandom > /big; md5sum /big > /sum`)
  await until('it counts', () => count(jid) > 2)
  return jid
}

async function runsOn(at: TestContainerd, jid: string): Promise<void> {
  const before = count(jid)
  await until('it runs on', () => count(jid) > before)
  expect((await at.task(jid))?.status).toBe('RUNNING')
}

/** Writes until the disk has no more than `left` bytes. Answers how to take that away. */
function fill(directory: string, left = 0): () => void {
  const path = join(directory, 'filling')
  const fd = openSync(path, 'w')
  const { bavail, bsize } = statfsSync(directory)
  try {
    for (let rest = bavail * bsize - left; rest > 0;) rest -= writeSync(fd, Buffer.alloc(Math.min(rest, MIB)))
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'ENOSPC') throw thrown
  } finally {
    closeSync(fd)
  }
  return () => rmSync(path)
}

const errorLine = ({ stderr }: Outcome): string => stderr.split('\n')[0] ?? ''

describe('the directory of the checkpoints', () => {
  test('has no room for the writable layer', async () => {
    const jid = await counting(world, containerd, 'layer', 6)
    const disk = world.smallDisk(4 << 10)
    for (const flags of [['--rootfs'], ['--rootfs', '--compression', 'lz4', '--streams', '2', '--leave-running'], ['--rootfs-only']]) {
      const failed = await world.fails(['dump', 'job', jid, '--dir', disk, ...flags])
      expect(errorLine(failed)).toMatch(
        /^Error: ResourceExhausted: cannot write the writable layer, [67][.]\d MiB, .*no space left on device$/,
      )
      expect(failed.stderr).toContain('--dir')
      await runsOn(containerd, jid)
      expect(readdirSync(disk)).toEqual([])
    }
    await world.quick(['job', 'kill', jid])
  })

  test('need not have room for the memory of processes that are left out', async () => {
    const jid = world.jid('memory')
    const holds = 'x=$(head -c 6000000 /dev/zero | tr "\\\\0" x); echo ready; while :; do sleep 1; done'
    await world.quick(['run', 'containerd', await containerd.busybox(), '--jid', jid, ...containerd.flags, '--', 'sh', '-c', holds])
    await until('it has its memory', () => count(jid) > 1)
    const disk = world.smallDisk(4 << 10)
    expect((await world.fails(['dump', 'job', jid, '--dir', disk])).stderr).toContain('not enough space')
    await world.ok(['dump', 'job', jid, '--dir', disk, '--rootfs-only'])
    await world.quick(['job', 'kill', jid])
  })
})

describe('containerd’s own disk', () => {
  let root: string
  let other: TestContainerd
  beforeAll(async () => {
    root = world.smallDisk(32 << 10)
    other = new TestContainerd(world, { root }, 'small')
    await other.open()
  })
  afterAll(() => other.close().catch((left: unknown) => world.blame(left)))

  test('has no room for the diff of the writable layer', async () => {
    const jid = await counting(world, other, 'diff', 6)
    const free = fill(root, 3 * MIB)
    const image = `test.local/full:${world.id}`
    for (const flags of [['--rootfs'], ['--rootfs-only', '--image', image]]) {
      const failed = await world.fails(['dump', 'job', jid, ...flags])
      expect(errorLine(failed)).toMatch(/^Error: ResourceExhausted: containerd: write \S+: no space left on device$/)
      expect(failed.stderr).toContain('free some space there')
      await runsOn(other, jid)
      expect(readdirSync(world.checkpoints).filter((name) => name.includes(jid))).toEqual([])
    }
    free()
    expect(await other.ok('images', 'ls', '--quiet')).not.toContain(image)
    await world.quick(['job', 'kill', jid])
  })

  test('has no room for the layer that comes back', async () => {
    const jid = await counting(world, other, 'back', 6)
    await world.ok(['dump', 'job', jid, '--rootfs'])
    const free = fill(root, 3 * MIB)
    const failed = await world.fails(['restore', 'job', jid])
    expect(errorLine(failed)).toMatch(/^Error: ResourceExhausted: containerd: write \S+: no space left on device$/)
    expect(failed.stderr).toContain('free some space there')
    expect(await other.task(jid)).toBeUndefined()
    expect(await other.containers()).toContain(jid)
    free()
    await world.ok(['restore', 'job', jid])
    expect(await other.exec(jid, 'md5sum', '-c', '/sum')).toBe('/big: OK\n')
    await world.quick(['job', 'kill', jid])
  })
})

describe('the directory of the daemon', () => {
  test('has no room for what a dump and a restore note there', async () => {
    const jid = await counting(world, containerd, 'notes', 0)
    await world.stopDaemon()
    world.smallDisk(1 << 10, world.runDir)
    await world.startDaemon()
    const freeAtDump = fill(world.runDir)
    // CRIU has no room for its log and its statistics, which nothing depends on.
    await world.ok(['dump', 'job', jid])
    const failed = await world.fails(['restore', 'job', jid])
    expect(errorLine(failed)).toMatch(/^Error: ResourceExhausted: .*no space left on device/)
    expect(await containerd.task(jid)).toBeUndefined()
    freeAtDump()
    await world.ok(['restore', 'job', jid])
    await runsOn(containerd, jid)
    await world.quick(['job', 'kill', jid])
    await world.quick(['job', 'delete', jid])
    expect(existsSync(join(world.runDir, 'jobs', jid))).toBe(false)
  })
})

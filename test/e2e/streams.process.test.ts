/** Checkpoints in several streams, and archives made while CRIU dumps: there and back, damaged, interrupted. */
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { children, isAlive, processInfo, WITHOUT_OTHERS } from '../support/processes.js'
import { program } from '../support/programs.js'
import { until } from '../support/wait.js'
import { useWorld, World, type Job } from '../support/world.js'

const world = useWorld()
const SUFFIXES = { none: '', tar: '', gzip: '.gz', lz4: '.lz4', zlib: '.zlib', zstd: '.zst' } as const
const COMPRESSIONS = Object.keys(SUFFIXES) as (keyof typeof SUFFIXES)[]

/** With a daemon of its own, whose configuration has these variables. */
async function ownWorld(variables: Record<string, string>): Promise<World> {
  const own = new World({ env: variables })
  onTestFinished(() => own.close(), 60_000)
  await own.open()
  return own
}

const streamsOf = (path: string): string[] => readdirSync(path).filter((name) => name !== 'manifest.json').sort() // prettier-ignore

/** The failing dump leaves the target as it was, and nothing behind. */
async function expectUntouched(job: Job, directory: string, before: readonly string[] = []): Promise<void> {
  expect(isAlive(job.pid)).toBe(true)
  await until('it runs', () => /[SR]/.test(processInfo(job.pid)?.state ?? ''))
  await until('nothing is left', () => readdirSync(directory).join() === [...before].join())
}

describe('a dump in several streams', () => {
  test.each(COMPRESSIONS.flatMap((compression) => [2, 11].map((streams) => [compression, streams] as const)))(
    '[must] --compression %s --streams %i: img-0 …, and the memory comes back',
    async (compression, streams) => {
      const job = await world.job('memory', ['48', 'half'])
      const name = `${compression}-${streams}`
      const path = await world.dump(job, ['--compression', compression, '--streams', String(streams), '--name', name])
      expect(path).toBe(join(world.checkpoints, name))
      const expected = Array.from({ length: streams }, (_, index) => `img-${index}${SUFFIXES[compression]}`)
      expect(streamsOf(path)).toEqual(expected.sort())
      await world.quick(['checkpoint', 'verify', path])
      const { stdout } = await world.ok(['checkpoint', 'inspect', '--type', 'ps', path])
      expect(stdout).toContain(String(job.pid))
      await world.quick(['restore', 'job', job.jid])
      await job.verify()
    },
  )

  test('[must] --streams 0 makes none, 1 is refused; checkpoint.streams counts when the request does not say', async () => {
    const own = await ownWorld({ CEDANA_CHECKPOINT_STREAMS: '3', CEDANA_CHECKPOINT_COMPRESSION: 'lz4' })
    const job = await own.job('pipes')
    expect(streamsOf(await own.dump(job, ['--leave-running']))).toEqual(['img-0.lz4', 'img-1.lz4', 'img-2.lz4'])
    const refused = await own.fails(['dump', 'job', job.jid, '--streams', '1'])
    expect(refused.stderr).toContain('A minimum of 2 streams are required for streaming. Specify 0 to disable streaming.')
    await job.verify()
    const plain = await world.job('pipes')
    expect(readdirSync(await world.dump(plain, ['--leave-running', '--streams', '0']))).not.toContain('img-0')
    await plain.verify()
  })

  test('an unknown compression is refused before anything is made', async () => {
    const job = await world.job('pipes')
    await world.fails(['dump', 'job', job.jid, '--streams', '2', '--compression', 'gz', '--name', 'not-made'])
    expect(readdirSync(world.checkpoints).filter((name) => name.includes('not-made'))).toEqual([])
    await job.verify()
  })

  test('--no-server, and delete', async () => {
    const started = await world.foreign('memory', ['16', 'random'])
    const path = join(world.checkpoints, 'no-server')
    await world.ok([
      'dump',
      'process',
      String(started.pid),
      '--no-server',
      '--streams',
      '2',
      '--compression',
      'zstd',
      '--name',
      'no-server',
    ])
    expect(streamsOf(path)).toEqual(['img-0.zst', 'img-1.zst'])
    await world.ok(['restore', 'process', '--path', path])
    await started.verify()
    const job = await world.job('pipes')
    const deleted = await world.dump(job, ['--streams', '2'])
    const [checkpoint] = JSON.parse((await world.ok(['checkpoints', job.jid, '-o', 'json'])).stdout) as { id: string }[]
    await world.ok(['checkpoint', 'delete', checkpoint?.id ?? ''])
    expect(readdirSync(world.checkpoints)).not.toContain(deleted.split('/').at(-1))
  })

  test('several processes, shared memory and files', async () => {
    for (const program of ['tree', 'mappings', 'unix-sockets']) {
      const job = await world.job(program)
      await world.dump(job, ['--streams', '3', '--compression', 'lz4'])
      await world.quick(['restore', 'job', job.jid])
      await job.verify()
    }
  })

  test('a flipped bit in any stream, one that is missing, and one too many are refused before anything runs', async () => {
    const job = await world.job('memory', ['16', 'random'])
    const path = await world.dump(job, ['--streams', '3', '--compression', 'lz4', '--name', 'damaged'])
    const refused = async (): Promise<void> => {
      const { stderr } = await world.refuses(['restore', 'job', job.jid])
      expect(stderr).toMatch(/damaged/)
      expect(isAlive(job.pid)).toBe(false)
      await world.refuses(['checkpoint', 'verify', path])
    }
    for (const name of readdirSync(path)) {
      const whole = readFileSync(join(path, name))
      for (const place of [0, 0.3, 0.99]) {
        const bytes = Buffer.from(whole)
        const at = Math.floor(bytes.length * place)
        bytes[at] = (bytes[at] ?? 0) ^ 1
        writeFileSync(join(path, name), bytes)
        await refused()
      }
      rmSync(join(path, name))
      await refused()
      writeFileSync(join(path, name), whole)
    }
    writeFileSync(join(path, 'img-4.lz4'), '')
    await refused()
    rmSync(join(path, 'img-4.lz4'))
    await world.quick(['restore', 'job', job.jid])
    await job.verify()
  })
})

describe('memory', () => {
  // Threads write to it until they stand still. It is read ahead, all of it or what the limit has room for.
  test.each([
    ['a directory', '512', []],
    ['an archive', '512', ['--compression', 'lz4']],
    ['streams, and little memory', '128', ['--streams', '2']],
  ])('--leave-running, to %s (limit %s MiB): the running program and the checkpoint have the same', async (_, limit, flags) => {
    const own = await ownWorld({ CEDANA_CHECKPOINT_MEMORY_LIMIT_MB: limit })
    const [job, stays] = [await own.job('regions'), await own.job('regions')]
    for (const one of [job, stays]) await own.dump(one, ['--leave-running', ...flags])
    await stays.verify()
    for (const pid of [...children(job.pid), job.pid]) process.kill(pid, 'SIGKILL')
    await until('it is gone', () => processInfo(job.pid) === undefined)
    await own.ok(['restore', 'job', job.jid])
    await job.verify()
  })

  // Nearly all of it is private to one process: it is not restored by CRIU, but written into the tree.
  test.each([
    ['a directory', []],
    ['streams', ['--streams', '2', '--compression', 'lz4']],
    ['streams of zstd', ['--streams', '3', '--compression', 'zstd']],
    ['an archive', ['--compression', 'tar']],
    ['an archive of lz4', ['--compression', 'lz4']],
    ['an archive of zstd', ['--compression', 'zstd']],
  ])('is written into the tree from %s', async (_, flags) => {
    const own = await ownWorld({})
    const job = await own.job('regions', ['alone'])
    await own.dump(job, flags)
    await own.quick(['restore', 'job', job.jid])
    expect(own.directBytes()).toBeGreaterThan(24 << 20)
    await job.verify()
  })

  test('is restored by CRIU from what would have to be unpacked twice for it', async () => {
    const own = await ownWorld({})
    const job = await own.job('regions', ['alone'])
    await own.dump(job, ['--compression', 'gzip'])
    await own.quick(['restore', 'job', job.jid])
    expect(own.directBytes()).toBe(0)
    await job.verify()
  })

  test.each([
    ['a directory', [], 'pages-1.img'],
    ['streams', ['--streams', '2'], 'img-1'],
    ['an archive', ['--compression', 'lz4'], ''],
  ])('that is damaged is found before anything runs, from %s', async (_, flags, name) => {
    const job = await world.job('memory', ['48', 'random'])
    const path = await world.dump(job, flags)
    const damaged = join(path, name)
    const whole = readFileSync(damaged)
    for (const place of [0.1, 0.5, 0.9]) {
      const bytes = Buffer.from(whole)
      const at = Math.floor(bytes.length * place)
      bytes[at] = (bytes[at] ?? 0) ^ 1
      writeFileSync(damaged, bytes)
      const { stderr } = await world.refuses(['restore', 'job', job.jid])
      expect(stderr).toContain('damaged')
      expect(isAlive(job.pid)).toBe(false)
    }
    writeFileSync(damaged, whole.subarray(0, whole.length / 2))
    expect((await world.refuses(['restore', 'job', job.jid])).stderr).toContain('damaged')
    writeFileSync(damaged, whole)
    await world.quick(['restore', 'job', job.jid])
    await job.verify()
  })

  test('is written into a tree in a PID namespace of its own', async () => {
    const own = await ownWorld({})
    const regions = `${await program('regions')} alone`
    const script = `${WITHOUT_OTHERS} && exec setsid ${regions}`
    const outer = await own.foreign('/usr/bin/unshare', ['-mpfiu', '--mount-proc', 'sh', '-c', script])
    await outer.says(/^READY$/m)
    const path = await own.dump({ ...outer, pid: children(outer.pid)[0]! })
    await until('nothing is left', () => !isAlive(outer.pid))
    const { stdout } = await own.ok(['restore', 'process', '--path', path])
    expect(own.directBytes()).toBeGreaterThan(24 << 20)
    process.kill(Number(/PID: (\d+)/.exec(stdout)?.[1]), 'SIGUSR1')
    await outer.says(/^PASS$/m)
  })

  test('--leave-running of a process that is PID 1 in its namespace', async () => {
    const script = `${WITHOUT_OTHERS} && exec setsid ${await program('regions')}`
    const outer = await world.foreign('/usr/bin/unshare', ['-mpfiu', '--mount-proc', 'sh', '-c', script])
    await outer.says(/^READY$/m)
    const path = await world.dump({ ...outer, pid: children(outer.pid)[0]! }, ['--leave-running'])
    process.kill(children(outer.pid)[0]!, 'SIGKILL')
    await until('nothing is left', () => !isAlive(outer.pid))
    const { stdout } = await world.ok(['restore', 'process', '--path', path])
    process.kill(Number(/PID: (\d+)/.exec(stdout)?.[1]), 'SIGUSR1')
    await outer.says(/^PASS$/m)
  })

  test('--leave-running beyond the limit: the target waits for the disk, not for the compressor, and it is said', async () => {
    const own = await ownWorld({ CEDANA_CHECKPOINT_MEMORY_LIMIT_MB: '64' })
    const job = await own.job('memory', ['256', 'half'])
    const { stdout } = await own.quick(['dump', 'job', job.jid, '--leave-running', '--compression', 'zlib', '--streams', '2'])
    expect(stdout).toMatch(/^Note: \d+ MiB waited on disk to be packed, beyond the 64 MiB of checkpoint.memory_limit_mb$/m)
    const path = /^Dumped to (.+)$/m.exec(stdout)?.[1] ?? ''
    await own.quick(['checkpoint', 'verify', path])
    process.kill(job.pid, 'SIGKILL')
    await until('it is gone', () => processInfo(job.pid) === undefined)
    await own.quick(['restore', 'job', job.jid])
    await job.verify()
  })

  test('more streams than there is memory for are refused, fewer threads pack the others', async () => {
    const own = await ownWorld({ CEDANA_CHECKPOINT_MEMORY_LIMIT_MB: '32' })
    const job = await own.job('memory', ['192', 'random'])
    const { stderr } = await own.fails(['dump', 'job', job.jid, '--streams', '8'])
    expect(stderr).toContain('8 streams take 52 MiB of memory, and checkpoint.memory_limit_mb is 32')
    expect(readdirSync(own.checkpoints)).toEqual([])
    writeFileSync(`/proc/${own.daemonPid}/clear_refs`, '5')
    const before = peakMiB(own.daemonPid)
    await own.dump(job, ['--streams', '2', '--compression', 'lz4', '--leave-running'])
    expect(peakMiB(own.daemonPid) - before).toBeLessThan(32 * 1.1 + 24) // what the heap of JavaScript may grow by
    await own.dump(job, ['--streams', '2', '--compression', 'lz4'])
    await own.quick(['restore', 'job', job.jid])
    await job.verify()
  })

  test('a restore beyond checkpoint.stream_memory_limit', async () => {
    const own = await ownWorld({ CEDANA_CHECKPOINT_STREAM_MEMORY_LIMIT: '8' })
    const job = await own.job('memory', ['64', 'random'])
    // Of gzip all of it is unpacked for CRIU.
    for (const flags of [
      ['--compression', 'gzip', '--streams', '2'],
      ['--compression', 'gzip'],
    ]) {
      const path = await own.dump(job, flags)
      await own.quick(['restore', 'job', job.jid])
      expect(
        readdirSync(own.checkpoints)
          .filter((name) => !path.endsWith(name))
          .filter((name) => name.startsWith('.')),
      ).toEqual([])
    }
    await job.verify()
  })
})

describe('an interrupted dump', () => {
  test.each([
    ['that kills', []],
    ['that leaves it running', ['--leave-running']],
  ])('%s: Ctrl-C while it is compressed ends it at once, and the target runs on', async (_, flags) => {
    const directory = world.work()
    // Which would take several times as long as it may take to end.
    const job = await world.job('memory', ['192', 'random'])
    const asked = ['dump', 'job', job.jid, '--dir', directory, '--compression', 'zstd', '--level', '19', ...flags]
    const dump = world.talk(asked)
    await until('it is being compressed', () => readdirSync(directory).length > 0 && processInfo(job.pid)?.state !== undefined)
    await new Promise((done) => setTimeout(done, 1500))
    expect(dump.ended).toBe(false)
    const started = performance.now()
    dump.signal('SIGINT')
    expect((await dump.exit).code).not.toBe(0)
    expect(performance.now() - started).toBeLessThan(5000)
    await expectUntouched(job, directory)
    // Not locked, and nothing is at work any more.
    await world.dump(job, ['--dir', directory, '--streams', '2'])
    await world.quick(['restore', 'job', job.jid])
    await job.verify()
  })

  test.each([
    ['an archive', ['--compression', 'lz4']],
    ['streams', ['--streams', '2']],
    ['streams, left running', ['--streams', '2', '--compression', 'zstd', '--leave-running']],
  ])('by a full disk: %s', async (_, flags) => {
    const small = world.work()
    mkdirSync(join(small, 'disk'))
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=70m', 'cedana-test', join(small, 'disk')])
    onTestFinished(() => void execFileSync('umount', ['-l', join(small, 'disk')]))
    const job = await world.job('memory', ['64', 'random'])
    // Somebody else fills the disk after the look at it.
    const filler = world.talk(['dump', 'job', job.jid, '--dir', join(small, 'disk'), ...flags])
    writeFileSync(join(small, 'disk', 'other'), Buffer.alloc(40 << 20))
    const { code } = await filler.exit
    expect(code).not.toBe(0)
    expect(filler.stderr).toMatch(/no space|not enough space/i)
    await expectUntouched(job, join(small, 'disk'), ['other'])
    await job.verify()
  })

  test('by a directory that vanishes', async () => {
    const directory = join(world.work(), 'gone')
    mkdirSync(directory)
    const job = await world.job('memory', ['192', 'half'])
    const dump = world.talk(['dump', 'job', job.jid, '--dir', directory, '--compression', 'zlib'])
    await until('it has begun', () => readdirSync(directory).length > 0)
    // It may be about to make a file there.
    rmSync(directory, { recursive: true, maxRetries: 50 })
    expect((await dump.exit).code).not.toBe(0)
    expect(isAlive(job.pid)).toBe(true)
    await until('it runs', () => /[SR]/.test(processInfo(job.pid)?.state ?? ''))
    await job.verify()
  })

  test('by a disk that is unmounted', async () => {
    const directory = world.smallDisk(400 << 10)
    const job = await world.job('memory', ['192', 'half'])
    const dump = world.talk(['dump', 'job', job.jid, '--dir', directory, '--compression', 'zlib'])
    await until('it has begun', () => readdirSync(directory).length > 0)
    execFileSync('umount', ['-l', directory])
    expect((await dump.exit).code).not.toBe(0)
    expect(dump.stderr).toContain(`${directory} was unmounted or moved during the dump`)
    execFileSync('mount', ['-t', 'tmpfs', 'small', directory]) // the world unmounts it
    await expectUntouched(job, directory)
    await job.verify()
  })

  test("by CRIU's end", async () => {
    const directory = world.work()
    const job = await world.job('memory', ['192', 'half'])
    const dump = world.talk(['dump', 'job', job.jid, '--dir', directory, '--streams', '2', '--compression', 'lz4'])
    const criu = await until('CRIU is at work', () =>
      readdirSync(directory).length > 0
        ? readdirSync('/proc').map(Number).find((pid) => isCriuOf(world, pid)) // prettier-ignore
        : undefined,
    )
    process.kill(criu, 'SIGKILL')
    expect((await dump.exit).code).not.toBe(0)
    await expectUntouched(job, directory)
    await job.verify()
  })

  test('by kill -9 of the daemon: the target runs on, and the next daemon clears up', async () => {
    const own = await ownWorld({})
    const job = await own.job('memory', ['128', 'random'])
    for (const delay of [100, 250, 400, 700]) {
      const dump = own.cedana(['dump', 'job', job.jid, '--streams', '2', '--compression', 'zstd', '--level', '9'])
      await new Promise((done) => setTimeout(done, 150 + delay))
      await own.killDaemon()
      await own.startDaemon()
      await dump
      if (!isAlive(job.pid)) await own.quick(['restore', 'job', job.jid])
      await until('it runs', () => /[SR]/.test(processInfo(job.pid)?.state ?? ''))
      await until('nothing half-made is left', () => !readdirSync(own.checkpoints).some((name) => name.startsWith('.')))
    }
    await job.verify()
  })
})

describe('a machine that is short of', () => {
  const MAKE_DISK = 'truncate -s 300M "$1.img" && mkfs.ext4 -q "$1.img" && mkdir "$1" && mount -o loop "$1.img" "$1"'

  test('speed of its disk: a dump waits for it and is whole', async ({ skip }) => {
    const directory = join(world.work(), 'slow')
    skip(spawnSync('sh', ['-c', MAKE_DISK, 'sh', directory]).status !== 0, 'needs loop devices and ext4')
    onTestFinished(() => until('it is unmounted', () => spawnSync('umount', [directory]).status === 0).then(() => undefined))
    for (const flags of [[], ['--streams', '2', '--compression', 'lz4', '--leave-running']]) {
      const job = await world.job('memory', ['96', 'random'])
      const dump = world.talk(['dump', 'job', job.jid, '--dir', directory, '--name', 'slow', ...flags])
      await until('it has begun', () => readdirSync(directory).some((name) => name.startsWith('.')))
      for (let stops = 0; stops < 5 && !dump.ended; stops++) {
        execFileSync('fsfreeze', ['--freeze', directory])
        await new Promise((done) => setTimeout(done, 150))
        execFileSync('fsfreeze', ['--unfreeze', directory])
        await new Promise((done) => setTimeout(done, 50))
      }
      expect((await dump.exit).code, dump.stderr).toBe(0)
      await world.quick(['checkpoint', 'verify', join(directory, 'slow')])
      if (!flags.includes('--leave-running')) await world.quick(['restore', 'job', job.jid])
      await job.verify()
      rmSync(join(directory, 'slow'), { recursive: true })
    }
  })

  test('threads: a dump does with fewer, or fails and changes nothing', async ({ skip }) => {
    const cgroup = `/sys/fs/cgroup/pids/cedana-test-${world.id}`
    skip(!existsSync('/sys/fs/cgroup/pids'), 'needs the pids controller of cgroup v1')
    const own = await ownWorld({})
    const job = await own.job('memory', ['16', 'random'])
    mkdirSync(cgroup)
    const pids = (name: string): string => join(cgroup, `pids.${name}`)
    writeFileSync(join(cgroup, 'cgroup.procs'), String(own.daemonPid))
    onTestFinished(async () => {
      await own.stopDaemon()
      await until('it is empty, and goes', () => spawnSync('rmdir', [cgroup]).status === 0)
    })
    const outcomes = new Set<number>()
    for (const spare of [0, 2, 4, 5, 6, 7, 8, 10, 12, 16]) {
      writeFileSync(pids('max'), String(Number(readFileSync(pids('current'), 'utf8')) + spare))
      const { code } = await own.cedana(['dump', 'job', job.jid, '--leave-running', '--streams', '2', '--name', `with-${spare}`])
      writeFileSync(pids('max'), 'max')
      outcomes.add(code)
      expect(isAlive(own.daemonPid)).toBe(true)
      if (code === 0) await own.quick(['checkpoint', 'verify', join(own.checkpoints, `with-${spare}`)])
      rmSync(join(own.checkpoints, `with-${spare}`), { recursive: true, force: true })
      await expectUntouched(job, own.checkpoints)
    }
    expect([...outcomes].sort()).toEqual([0, 1])
    await job.verify()
  })
})

const peakMiB = (pid: number): number => Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024

/** A CRIU that a daemon of this world has started. */
function isCriuOf(of: World, pid: number): boolean {
  if (!Number.isInteger(pid)) return false
  const info = processInfo(pid)
  return info?.parent === of.daemonPid && info.command.includes('swrk')
}

/** Every test program across a checkpoint: as a job, and as a process that cedana did not start; left running, and killed and brought back. */
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { PROGRAMS, titleOf } from '../programs/table.js'
import { children, isAlive, processInfo, requires, WITHOUT_OTHERS } from '../support/processes.js'
import { program } from '../support/programs.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const world = useWorld()

/** A root of its own with what a shell needs of the machine's. */
const NEW_ROOT = `
mount -t tmpfs none . && cd "$PWD" && mkdir usr old && mount --bind /usr usr && ln -s usr/bin usr/lib usr/lib64 . &&
pivot_root . old && exec sleep 1000`

describe('a job is dumped, restored, and verifies its state', () => {
  for (const program of PROGRAMS.filter(({ refused }) => refused === undefined)) {
    const { name, args = [], flags = [], capability } = program
    test(titleOf(program), async (context) => {
      if (capability !== undefined) requires(context, capability)
      const job = await world.job(name, args)
      await world.dump(job, flags)
      expect(processInfo(job.pid), 'nothing of the tree is left').toBeUndefined()
      const { stdout } = await world.quick(['restore', 'job', job.jid, ...flags])
      expect(stdout).toContain(`Restored successfully, PID: ${job.pid}`)
      await job.verify()
    })
  }
})

describe('a process that is no job is left running by a dump, and brought back from it later', () => {
  for (const program of PROGRAMS.filter(({ name, refused }) => refused === undefined && name !== 'memory')) {
    const { name, args = [], flags = [], capability } = program
    test(titleOf(program), async (context) => {
      if (capability !== undefined) requires(context, capability)
      const started = await world.foreign(name, args)
      const before = processInfo(started.pid)
      await world.dump(started, ['--leave-running', ...flags])
      expect(processInfo(started.pid)?.startTicks, 'the same process goes on').toBe(before?.startTicks)
      const path = await world.dump(started, flags)
      expect(isAlive(started.pid)).toBe(false)
      await world.ok(['restore', 'process', '--path', path, ...flags])
      await started.verify()
    })
  }
})

describe('what CRIU cannot dump is refused beforehand, with the reason, and goes on unharmed', () => {
  for (const program of PROGRAMS.filter(({ refused }) => refused !== undefined)) {
    const { name, args = [], flags = [], refused } = program
    test(titleOf(program), async () => {
      const job = await world.job(name, args)
      const { stderr } = await world.fails(['dump', 'job', job.jid, ...flags])
      expect(stderr).toMatch(refused?.message ?? /./)
      expect(stderr).toContain(String(job.pid))
      expect(isAlive(job.pid)).toBe(true)
      await job.verify()
    })
  }

  test.each([
    ['a user namespace alone, which plain CRIU dumps and cannot restore', ['unshare', '-Ur', 'sleep', '1000']],
    ['a cgroup namespace, which plain CRIU loses', ['unshare', '-C', 'sleep', '1000']],
    ['a child in another PID namespace', ['unshare', '-pf', 'sleep', '1000']],
    ['a child in a mount namespace of its own', ['sh', '-c', 'unshare -m sleep 1000 & wait']],
    ['a child in a network namespace of its own', ['sh', '-c', 'unshare -n sleep 1000 & wait']],
    ['a child in a UTS namespace of its own', ['sh', '-c', 'unshare -u sleep 1000 & wait']],
  ])('%s', async (_, command) => {
    const jid = world.jid('namespace')
    const { stdout } = await world.ok(['run', 'process', '--jid', jid, '--', ...command])
    const pid = Number(/PID (\d+)/.exec(stdout)?.[1])
    await until('it is in its namespace', () => [pid, ...children(pid)].some((one) => processInfo(one)?.command.startsWith('sleep')))
    expect((await world.fails(['dump', 'job', jid])).stderr).toMatch(/FailedPrecondition: process \d+ \(.*\) .* namespace/)
    expect(isAlive(pid)).toBe(true)
  })

  test.each([
    ['mounts in a user namespace', ['-Urmpf', '--mount-proc', 'setsid', 'sleep', '1000'], /mount namespace in a user namespace of its own/],
    [
      'a session outside of the PID namespace',
      ['-mpf', '--mount-proc', 'sleep', '1000'],
      /PID namespace of its own and its session is not/,
    ],
    ['another root file system', ['-mpf', 'setsid', 'sh', '-c', NEW_ROOT], /another root file system than this machine/],
  ])('%s', async (_, command, message) => {
    const outer = await world.foreign('/usr/bin/unshare', command)
    const pid = await until('it sleeps', () => children(outer.pid).find((one) => processInfo(one)?.command.startsWith('sleep')))
    const { stderr } = await world.fails(['dump', 'process', String(pid)])
    expect(stderr).toMatch(message)
    expect(stderr).toContain(`process ${pid} (sleep)`)
    expect(isAlive(pid)).toBe(true)
  })
})

describe('namespaces of its own are there again, with what was in them', () => {
  test.each([[['-m', '-u']], [['-m', '-u', '-i', '-n']]])('of a job: unshare %j', async (flags) => {
    const [jid, dir] = [world.jid('own'), world.work()]
    const file = join(dir, 'file')
    const make = 'mount -t tmpfs none "$0" && echo kept > "$0/file" && echo inside > /proc/sys/kernel/hostname'
    const script = `${WITHOUT_OTHERS} && ${make} && exec sleep 1000`
    const { stdout } = await world.ok(['run', 'process', '--jid', jid, '--', 'unshare', ...flags, 'sh', '-c', script, dir])
    const pid = Number(/PID (\d+)/.exec(stdout)?.[1])
    await until('it sleeps', () => processInfo(pid)?.command.startsWith('sleep'))
    const before = ownNamespaces(pid)
    expect(before).toHaveLength(flags.length)
    await world.quick(['dump', 'job', jid])
    await world.quick(['restore', 'job', jid])
    expect(ownNamespaces(pid)).toEqual(before)
    const inside = ['-t', String(pid), '-m', '-u', 'cat', file, '/proc/sys/kernel/hostname']
    expect(execFileSync('nsenter', inside, { encoding: 'utf8' })).toBe('kept\ninside\n')
    expect(existsSync(file)).toBe(false)
  })

  test('of a process that is PID 1 among them', async () => {
    const script = `${WITHOUT_OTHERS} && exec setsid ${await program('children')}`
    const outer = await world.foreign('/usr/bin/unshare', ['-mpfiu', '--mount-proc', 'sh', '-c', script])
    await outer.says(/^READY$/m)
    const path = await world.dump({ ...outer, pid: children(outer.pid)[0]! })
    await until('nothing is left', () => !isAlive(outer.pid))
    const { stdout } = await world.ok(['restore', 'process', '--path', path])
    process.kill(Number(/PID: (\d+)/.exec(stdout)?.[1]), 'SIGUSR1')
    await outer.says(/^PASS$/m)
  })
})

/** Kinds of those that are not ours; of time every restored process has one. */
const ownNamespaces = (pid: number): readonly string[] =>
  readdirSync(`/proc/${pid}/ns`).filter(
    (kind) => !/^time|_for_children$/.test(kind) && readlinkSync(`/proc/${pid}/ns/${kind}`) !== readlinkSync(`/proc/self/ns/${kind}`),
  )

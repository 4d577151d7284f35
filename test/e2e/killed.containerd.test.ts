/**
 * SIGKILL for whoever is at work while a container of containerd is made or restored: containerd, its shim, runc, our launcher and shim, the daemon.
 * Whatever is left then is the container as it was and its checkpoint, and nothing of the attempt; the same command works afterwards.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { afterAll, describe, expect, test } from 'vitest'
import { useContainerd } from '../support/containerd.js'
import type { Conversation } from '../support/conversation.js'
import { criuPath } from '../support/plain-criu.js'
import { allProcesses, isAlive, type ProcessInfo, processInfo } from '../support/processes.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'
import type { Host } from '../../src/plugins/contract/host.js'
import { Containerd } from '../../src/plugins/containerd/client.js'
import { brief, identify } from '../../src/daemon/host/processes.js'
import { leased } from '../../src/plugins/containerd/lease.js'

const held = mkdtempSync('/tmp/ct-held-')
const [block, reached, criu] = ['block', 'reached', 'criu'].map((name) => join(held, name)) as [string, string, string]
const world = useWorld({ env: { CEDANA_CRIU_BINARY_PATH: criu } })
const containerd = useContainerd(world, { path: held })

/** A CRIU that waits for as long as it is told to and runc lives, when that has made and mounted what a restore takes. */
const isTime = `[ -e ${block} ] && ls -d ${containerd.runcRoot}/*/criu-root > ${held}/list 2>&1`
const waiting = `echo $$ > ${reached}; while [ -e ${block} ] && kill -0 $PPID 2> ${held}/list; do sleep 0.02; done`
writeFileSync(criu, `#!/bin/sh\nif ${isTime}; then ${waiting}; fi\nexec ${criuPath()} "$@"\n`, {
  mode: 0o755,
})
/** And a runc that does the same before it makes a container. */
const runc = execFileSync('sh', ['-c', 'command -v runc'], { encoding: 'utf8' }).trim()
const isCreation = `[ -e ${block} ] && case " $* " in *" create "*) true ;; *) false ;; esac`
writeFileSync(join(held, 'runc'), `#!/bin/sh\nif ${isCreation}; then ${waiting}; fi\nexec ${runc} "$@"\n`, { mode: 0o755 })
afterAll(() => rmSync(held, { recursive: true }))
const COUNT = 'echo begun > /var/log/file; i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done'

const found = (what: string, isIt: (info: ProcessInfo) => boolean): number => {
  const [first] = allProcesses().filter((info) => isIt(info) && isAlive(info.pid))
  if (!first) throw new Error(`no ${what}`)
  return first.pid
}
const pidOf = {
  containerd: () => containerd.pid,
  daemon: () => world.daemonPid,
  runc: () => processInfo(Number(readFileSync(reached, 'utf8')))?.parent ?? 0,
  shim: () => processInfo(pidOf.runc())?.parent ?? 0,
  launcher: () => found('launcher', ({ command }) => command.includes(`${world.runDir}/jobs/`) && !command.includes('cedana-shim')),
  'own shim': () => processInfo(pidOf.launcher())?.parent ?? 0,
}
type Victim = keyof typeof pidOf

interface Job {
  readonly jid: string
  readonly run: readonly string[]
  countsOn(): Promise<void>
}

async function job(word: string): Promise<Job> {
  const jid = world.jid(word)
  const run = ['run', 'containerd', await containerd.busybox(), '--jid', jid, ...containerd.flags, '--', 'sh', '-c', COUNT]
  const output = (): string => readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8')
  const countsOn = async (): Promise<void> => {
    const { length } = output()
    await until('it counts on', () => output().length > length)
    const numbers = output().trimEnd().split('\n').slice(0, -1).map(Number)
    expect(numbers).toEqual(numbers.map((_, index) => index + 1))
  }
  return { jid, run, countsOn }
}

async function dumped(word: string, flags: readonly string[] = []): Promise<Job & { readonly path: string }> {
  const one = await job(word)
  await world.quick(one.run)
  await one.countsOn()
  const { stdout } = await world.quick(['dump', 'job', one.jid, ...flags])
  return { ...one, path: /^Dumped to (.+)$/m.exec(stdout)?.[1] ?? '' }
}

/** Calls it, and answers when it is held. */
async function hold(args: readonly string[]): Promise<Conversation> {
  rmSync(reached, { force: true })
  writeFileSync(block, '')
  const call = world.talk(args)
  await until('it is held', () => existsSync(reached) && pidOf.runc() > 1)
  return call
}

function remains(jid: string): string[] {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n')
  const hierarchies = readdirSync('/sys/fs/cgroup').map((name) => join('/sys/fs/cgroup', name))
  const cgroups = ['/sys/fs/cgroup', ...hierarchies].map((path) => join(path, containerd.cgroup, jid))
  const state = join(containerd.runcRoot, jid)
  const points = mounts.map((line) => line.split(' ')[4] ?? '').filter((point) => point.includes(`/${jid}/`))
  const processes = allProcesses().filter(({ command, pid }) => command.includes(jid) && isAlive(pid))
  return [...[state, join(world.runDir, 'jobs', jid), ...cgroups].filter(existsSync), ...points, ...processes.map(({ command }) => command)]
}

async function strike(victims: readonly Victim[]): Promise<void> {
  // All are looked for while they are there; the daemon is not to see what comes then.
  const pids = victims.map((victim) => pidOf[victim]())
  if (victims.includes('daemon')) await world.killDaemon()
  for (const pid of pids) if (isAlive(pid)) process.kill(pid, 'SIGKILL')
  await until('they are dead', () => !pids.some(isAlive))
  if (victims.includes('containerd')) await containerd.restart()
  if (victims.includes('daemon')) await world.startDaemon()
}

const VICTIMS: readonly (readonly Victim[])[] = [
  ['runc'],
  ['runc', 'shim'],
  ['containerd'],
  ['containerd', 'shim'],
  ['launcher'],
  ['own shim'],
  ['daemon', 'launcher'],
  ['daemon', 'own shim', 'launcher', 'containerd', 'shim', 'runc'],
]

describe('a restore in the middle of which', () => {
  test.each(VICTIMS.map((victims) => [victims.join(' and '), victims] as const))('%s is killed', async (_, victims) => {
    const { jid, countsOn } = await dumped('killed')
    const call = await hold(['restore', 'job', jid])
    await strike(victims)
    expect((await call.exit).code).toBe(1)
    rmSync(block)
    expect(call.stderr).toMatch(
      victims.includes('containerd') && victims.length === 1 ? /FailedPrecondition: containerd cannot be reached/ : /^Error: ./m,
    )
    await until('nothing is left of it', () => remains(jid).length === 0).catch(() => expect(remains(jid)).toEqual([]))
    expect(await containerd.task(jid)).toBeUndefined()
    expect((await world.row(jid))?.[3]).toBe('halted')
    await world.quick(['restore', 'job', jid])
    await countsOn()
    expect(await containerd.exec(jid, 'cat', '/var/log/file')).toBe('begun\n')
    await world.quick(['kill', jid])
    expect(await containerd.containers()).not.toContain(jid)
  })
})

test('a run in the middle of which containerd is killed is taken back when that is there again', async () => {
  const { jid, run, countsOn } = await job('taken-back')
  const call = await hold(run)
  await strike(['containerd'])
  rmSync(block)
  expect((await call.exit).code).toBe(1)
  expect(call.stderr).toMatch(/FailedPrecondition: containerd cannot be reached/)
  await until('nothing is left of it', () => remains(jid).length === 0).catch(() => expect(remains(jid)).toEqual([]))
  expect(await containerd.containers()).not.toContain(jid)
  expect(await containerd.writableLayers()).toEqual([])
  await world.quick(run)
  await countsOn()
  await world.quick(['kill', jid])
})

test('a lease is given back to a containerd that was killed meanwhile', async () => {
  const place = { address: containerd.address, namespace: containerd.namespace }
  using client = new Containerd(place)
  using patient = new Containerd(place)
  const leases = async (): Promise<string> => containerd.ok('leases', 'ls', '--quiet')
  let back: Promise<void> | undefined
  const host = { identify, brief } as unknown as Host
  const work = leased({ host, containerd: client, patient }, async () => {
    expect(await leases()).toMatch(/^cedana-/)
    await containerd.stop('SIGKILL')
    back = containerd.start()
    throw new Error('it failed')
  })
  await expect(work).rejects.toThrow('it failed')
  await back
  expect(await leases()).toBe('')
})

test('what a restore replaces is not collected before it has gone well', async () => {
  const { jid, path } = await dumped('replaced', ['--rootfs'])
  await world.quick(['restore', 'job', jid])
  await containerd.exec(jid, 'sh', '-c', 'echo later > /var/log/file')
  await world.quick(['dump', 'job', jid])
  const call = await hold(['restore', 'job', jid, '--path', path])
  // Which collects at once what nothing refers to.
  const lease = (await containerd.ok('leases', 'create')).trim()
  await containerd.ok('leases', 'delete', '--sync', lease)
  await strike(['runc'])
  expect((await call.exit).code).toBe(1)
  rmSync(block)
  await world.quick(['restore', 'job', jid])
  expect(await containerd.exec(jid, 'cat', '/var/log/file')).toBe('later\n')
  await world.quick(['kill', jid])
  expect(await containerd.writableLayers()).toEqual([])
})

const CGROUPS = '/sys/fs/cgroup'
function freezerOf(jid: string): { readonly file: string; readonly frozen: string } {
  const version1 = join(CGROUPS, 'freezer', containerd.cgroup, jid, 'freezer.state')
  return existsSync(version1)
    ? { file: version1, frozen: 'FROZEN' }
    : { file: join(CGROUPS, containerd.cgroup, jid, 'cgroup.freeze'), frozen: '1' }
}
const isFrozen = ({ file, frozen }: ReturnType<typeof freezerOf>): boolean => readFileSync(file, 'utf8').trim() === frozen

async function begun(word: string): Promise<Job & { readonly freezer: ReturnType<typeof freezerOf> }> {
  const one = await job(word)
  await world.quick(one.run)
  await one.countsOn()
  return { ...one, freezer: freezerOf(one.jid) }
}

test.each([
  ['CRIU', false],
  ['CRIU and the daemon', true],
])('a container goes on that %s had frozen to dump it, and was killed', async (_, withDaemon) => {
  const { jid, countsOn, freezer } = await begun('frozen')
  const call = world.talk(['dump', 'job', jid])
  const worker = await until('CRIU is started', () =>
    allProcesses().find(({ parent, command }) => parent === world.daemonPid && / swrk /.test(command)),
  )
  const notes = join(world.runDir, 'stopped')
  while (!existsSync(notes) || readdirSync(notes).length === 0) await setImmediate()
  // What CRIU does itself, for no longer than it takes to seize all threads.
  process.kill(worker.pid, 'SIGSTOP')
  writeFileSync(freezer.file, freezer.frozen)
  await until('it stands still', () => isFrozen(freezer))
  if (withDaemon) await world.killDaemon()
  process.kill(worker.pid, 'SIGKILL')
  expect((await call.exit).code).toBe(1)
  if (withDaemon) await world.startDaemon()
  await until('it goes on', () => !isFrozen(freezer))
  await countsOn()
  expect(readdirSync(join(world.runDir, 'stopped'))).toEqual([])
  await world.quick(['dump', 'job', jid])
  await world.quick(['restore', 'job', jid])
  await countsOn()
  await world.quick(['kill', jid])
})

test('a container goes on that was paused for its writable layer when the daemon was killed', async () => {
  const { jid, countsOn, freezer } = await begun('paused')
  await containerd.exec(jid, 'dd', 'if=/dev/zero', 'of=/large', 'bs=1M', 'count=200')
  const call = world.talk(['dump', 'job', jid, '--rootfs-only'])
  await until('it is paused', () => isFrozen(freezer))
  await world.killDaemon()
  expect((await call.exit).code).toBe(1)
  await world.startDaemon()
  await until('it goes on', () => !isFrozen(freezer))
  expect((await containerd.task(jid))?.status).toBe('RUNNING')
  await countsOn()
  // The next one ends what the killed one had from containerd.
  await world.quick(['dump', 'job', jid, '--rootfs-only'])
  expect(await containerd.ok('leases', 'ls', '--quiet')).toBe('')
  await world.quick(['kill', jid])
})

test('without containerd every verb that needs it says so in the same words, and a job is killed all the same', async () => {
  const { jid, run, countsOn } = await begun('alone')
  const stopped = await dumped('down')
  await containerd.stop('SIGKILL')
  const named = [jid, ...containerd.flags]
  const anew = run.map((word) => (word === jid ? world.jid('anew') : word))
  const verbs = ['manage', 'dump', 'freeze', 'unfreeze', 'query'].map((verb) => [verb, 'containerd', ...named])
  for (const args of [anew, ['restore', 'job', stopped.jid], ['dump', 'job', jid, '--rootfs'], ['freeze', 'job', jid], ...verbs]) {
    const { stderr } = await world.refuses(args)
    expect(stderr, args.join(' ')).toMatch(
      /^Error: FailedPrecondition: containerd cannot be reached at .*\n *→ start it, or name its socket/,
    )
  }
  await countsOn()
  const [{ stdout }] = await Promise.all([world.quick(['kill', jid]), containerd.start()])
  expect(stdout).toContain(`Killed job ${jid}`)
  await until('nothing is left of it', async () => !(await containerd.containers()).includes(jid))
  await world.quick(['restore', 'job', stopped.jid])
  await stopped.countsOn()
  await world.quick(['kill', stopped.jid])
})

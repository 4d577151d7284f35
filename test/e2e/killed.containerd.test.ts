/**
 * SIGKILL for whoever is at work while a container of containerd is restored: containerd, its shim, runc, our launcher and shim, the daemon. Whatever is
 * left then is the container as it was and its checkpoint, and nothing of the restore; the same command works afterwards.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { useContainerd } from '../support/containerd.js'
import { criuPath } from '../support/plain-criu.js'
import { allProcesses, isAlive, type ProcessInfo, processInfo } from '../support/processes.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const held = mkdtempSync('/tmp/ct-held-')
const [block, reached, criu] = ['block', 'reached', 'criu'].map((name) => join(held, name)) as [string, string, string]
const world = useWorld({ env: { CEDANA_CRIU_BINARY_PATH: criu } })
const containerd = useContainerd(world)

/** A CRIU that waits for as long as it is told to and runc lives, when that has made and mounted what a restore takes. */
const isTime = `[ -e ${block} ] && ls -d ${containerd.runcRoot}/*/criu-root > ${held}/list 2>&1`
const waiting = `echo $$ > ${reached}; while [ -e ${block} ] && kill -0 $PPID 2> ${held}/list; do sleep 0.02; done`
writeFileSync(criu, `#!/bin/sh\nif ${isTime}; then ${waiting}; fi\nexec ${criuPath()} "$@"\n`, { mode: 0o755 })
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

async function dumped(word: string): Promise<{ readonly jid: string; countsOn(): Promise<void> }> {
  const jid = world.jid(word)
  await world.quick(['run', 'containerd', await containerd.busybox(), '--jid', jid, ...containerd.flags, '--', 'sh', '-c', COUNT])
  const output = (): string => readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8')
  const countsOn = async (): Promise<void> => {
    const { length } = output()
    await until('it counts on', () => output().length > length)
    const numbers = output().trimEnd().split('\n').slice(0, -1).map(Number)
    expect(numbers).toEqual(numbers.map((_, index) => index + 1))
  }
  await until('it counts', () => existsSync(`/var/log/cedana-output-${jid}.log`) && output().includes('2\n'))
  await world.quick(['dump', 'job', jid])
  return { jid, countsOn }
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
  ['shim'],
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
    rmSync(reached, { force: true })
    writeFileSync(block, '')
    const call = world.talk(['restore', 'job', jid])
    await until('CRIU is called', () => existsSync(reached) && pidOf.runc() > 1)
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

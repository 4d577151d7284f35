import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { until } from '../../test/support/wait.js'
import { type ConnectorHandle, native, NativeError, type NativeExec } from '../index.js'

const BINARY = join(import.meta.dirname, '../../build/Release/cedana.node')
const BYTES = 1 << 20

const refusal = await native.connectorOpen(BYTES).then(
  (connector) => native.connectorClose(connector),
  (thrown: unknown) => (thrown instanceof NativeError ? thrown.code : String(thrown)),
)

const opened: ConnectorHandle[] = []
async function open(receiveBytes = BYTES): Promise<ConnectorHandle> {
  const connector = await native.connectorOpen(receiveBytes)
  opened.push(connector)
  return connector
}

/** A shell that executes a program when it is told to; its own exec is over. */
async function waitingShell(program: string): Promise<{ pid: number; go: () => Promise<void> }> {
  const child = spawn('/bin/sh', ['-c', `echo; read line; exec ${program}`], { stdio: ['pipe', 'pipe', 'inherit'] })
  const exited = once(child, 'exit')
  await once(child.stdout, 'data')
  const go = async (): Promise<void> => {
    child.stdin.write('go\n')
    await exited
  }
  return { pid: child.pid ?? 0, go }
}

/** Everything told up to an exec of that process after that time; the thread may be late with one from before the process was watched. */
async function execsUntil(connector: ConnectorHandle, pid: number, timeNs: number): Promise<NativeExec[]> {
  const told: NativeExec[] = []
  while (!told.some((exec) => exec.pid === pid && exec.timeNs > timeNs)) told.push(...(await native.connectorNext(connector)).execs)
  return told
}

const threads = (): number => readdirSync('/proc/self/task').length
const descriptors = (): number => readdirSync('/proc/self/fd').length

afterEach(() => {
  for (const connector of opened.splice(0)) native.connectorClose(connector)
})

describe.skipIf(refusal !== undefined)(
  `the proc connector (needs CAP_NET_ADMIN in the first namespaces; here: ${refusal ?? 'permitted'})`,
  () => {
    it('ends its thread and its socket when it is closed', async () => {
      const before = { threads: threads(), descriptors: descriptors() }
      const connector = await native.connectorOpen(BYTES)
      expect(descriptors()).toBeGreaterThan(before.descriptors)
      const next = native.connectorNext(connector)
      native.connectorClose(connector)
      await expect(next).rejects.toMatchObject({ code: 'ECANCELED' })
      await expect(native.connectorNext(connector)).rejects.toMatchObject({ code: 'ECANCELED' })
      await until('both end', () => threads() <= before.threads && descriptors() <= before.descriptors)
    })

    it('tells when a watched process executes a program, and nothing of others', async () => {
      const connector = await open()
      const other = await waitingShell('true')
      const watched = await waitingShell('true')
      native.connectorWatch(connector, watched.pid, true)
      await other.go()
      const before = Number(process.hrtime.bigint())
      await watched.go()
      const execs = await execsUntil(connector, watched.pid, before)
      expect(new Set(execs.map(({ pid }) => pid))).toEqual(new Set([watched.pid]))
      expect(execs.at(-1)?.timeNs).toBeLessThan(Number(process.hrtime.bigint()))
    })

    it('answers a question that was asked before', async () => {
      const connector = await open()
      const shell = await waitingShell('true')
      native.connectorWatch(connector, shell.pid, true)
      const next = native.connectorNext(connector)
      await expect(native.connectorNext(connector)).rejects.toMatchObject({ code: 'EBUSY' })
      await shell.go()
      expect((await next).execs).toContainEqual({ pid: shell.pid, timeNs: expect.any(Number) as number })
    })

    it('says nothing of a process that is no longer watched', async () => {
      const connector = await open()
      const [first, second] = [await waitingShell('true'), await waitingShell('true')]
      for (const { pid } of [first, second]) native.connectorWatch(connector, pid, true)
      native.connectorWatch(connector, first.pid, false)
      const before = Number(process.hrtime.bigint())
      await first.go()
      await second.go()
      const execs = await execsUntil(connector, second.pid, before)
      expect(execs.filter(({ timeNs }) => timeNs > before)).toMatchObject([{ pid: second.pid }])
    })

    it('says that events were lost', async () => {
      // Room for a few events, of which a storm has many at the same moment.
      const connector = await open(0)
      const next = native.connectorNext(connector)
      const storm = spawn('/bin/sh', ['-c', 'while :; do /bin/true & /bin/true & /bin/true; done'], { stdio: 'ignore', detached: true })
      try {
        expect(await next).toEqual({ execs: [], overrun: true })
      } finally {
        process.kill(-(storm.pid ?? 0), 'SIGKILL')
      }
    })

    it.each(['--user --map-root-user', '--pid --fork', '--net'])('says that it is not permitted in a namespace (%s)', (flags) => {
      const script = `require(${JSON.stringify(BINARY)}).connectorOpen(0).then(() => 'permitted', (e) => e.code).then(console.log)`
      const { stdout, stderr } = spawnSync('unshare', [...flags.split(' '), process.execPath, '-e', script], { encoding: 'utf8' })
      expect(stdout.trim(), stderr).toMatch(/^(EPERM|ECONNREFUSED)$/)
    })
  },
)

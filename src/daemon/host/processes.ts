/** Processes of this machine, always by identity: PID, start time and boot. */
import { access, readFile } from 'node:fs/promises'
import { constants, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { native, NativeError } from '../../../addon/index.js'
import type { NativeProcessBrief, NativeProcessOwner, NativeProcessStat, PidfdHandle } from '../../../addon/native.js'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { ProcessBrief } from '../../plugins/contract/host.js'
import type { ExitStatus, Pid, Snapshot, Target } from '../../plugins/contract/job.js'
import { shared } from './shared.js'

export const bootId: string = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()

export type ProcessRow = NativeProcessBrief
export type ProcessOwner = NativeProcessOwner

const gone = (pid: number): CedanaError => new CedanaError('NO_SUCH_PROCESS', `process with PID ${pid} does not exist`, { detail: { pid } })

/** The identity of a live process. Throws NO_SUCH_PROCESS. */
export async function identify(pid: number): Promise<Target> {
  const row = native.scanProcess(pid)
  if (!row) throw gone(pid)
  return { pid: pid as Pid, startTicks: row.startTicks, bootId }
}

/** A look at one process, undefined when there is none. */
export async function brief(pid: number): Promise<ProcessBrief | undefined> {
  const row = native.scanProcess(pid)
  return row === null
    ? undefined
    : { target: { pid: pid as Pid, startTicks: row.startTicks, bootId }, name: row.name, args: row.args, state: row.state }
}

/** What it runs, and as whom. Throws NO_SUCH_PROCESS when it is gone or is another process by now. */
export function ownerOf(target: Target): ProcessOwner {
  const row = target.bootId === bootId ? native.scanProcess(target.pid) : null
  if (row?.startTicks !== target.startTicks) throw gone(target.pid)
  return row
}

/** Brief rows of those PIDs that exist, by PID. */
export async function briefs(pids: readonly number[]): Promise<Map<number, ProcessRow>> {
  const rows = pids.length === 0 ? [] : await native.scanProcesses([...pids])
  return new Map(rows.map((row) => [row.pid, row]))
}

/** A thousand jobs that are killed at once need one look at /proc, not a thousand. */
export const allProcesses: () => Promise<readonly NativeProcessStat[]> = shared(() => native.scanStats())

/** Those that have this variable in their environment: what a program has called has it too, whoever its parent is by now. */
export async function withVariable(
  name: string,
  value: string,
): Promise<readonly { readonly target: Target; readonly args: readonly string[] }[]> {
  const line = `${name}=${value}`
  const found = await Promise.all(
    (await allProcesses()).map(async ({ pid, startTicks }) => {
      const environment = await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '')
      if (!environment.split('\0').includes(line)) return []
      return [{ target: { pid: pid as Pid, startTicks, bootId }, args: native.scanProcess(pid)?.args ?? [] }]
    }),
  )
  return found.flat()
}

/** A pidfd of exactly this process, or undefined when it is gone. Hands it to `use` and closes it after. */
async function withPidfd<T>(target: Target, use: (pidfd: PidfdHandle) => Promise<T> | T): Promise<T | undefined> {
  if (target.bootId !== bootId) return undefined
  let pidfd: PidfdHandle
  try {
    pidfd = native.pidfdOpen(target.pid)
  } catch (thrown) {
    if (thrown instanceof NativeError && (thrown.code === 'ESRCH' || thrown.code === 'EINVAL')) return undefined
    throw thrown
  }
  try {
    // The descriptor is taken first and the start time read after: a PID reused in between shows another start time.
    if (native.scanProcess(target.pid)?.startTicks !== target.startTicks) return undefined
    return await use(pidfd)
  } finally {
    native.pidfdClose(pidfd)
  }
}

export async function isAlive(target: Target): Promise<boolean> {
  if (target.bootId !== bootId) return false
  const row = native.scanProcess(target.pid)
  return row?.startTicks === target.startTicks && row.state !== 'Z' && row.state !== 'X'
}

/** Sends a signal to exactly this process. False when it is gone. */
export async function kill(target: Target, signal: number): Promise<boolean> {
  return (await withPidfd(target, (pidfd) => native.pidfdSend(pidfd, signal))) ?? false
}

/** Waits for the end of a process. Resolves at once when it is gone already; the status is empty when nobody can know it. */
export async function waitExit(target: Target): Promise<Partial<ExitStatus>> {
  const exit = await withPidfd(target, (pidfd) => native.pidfdWait(pidfd))
  if (!exit) return {}
  if (exit.signal !== null) return { signal: exit.signal }
  return exit.code === null ? {} : { code: exit.code }
}

/** False when the process is still there after that time. */
export async function waitGone(target: Target, timeoutMs: number): Promise<boolean> {
  const late = sleep(timeoutMs, false, { ref: false })
  return Promise.race([waitExit(target).then(() => true), late])
}

/** Waits until the PID itself is free (the process is reaped). False when that did not happen in time. */
export async function waitReaped(pid: number, startTicks: string, timeoutMs: number): Promise<boolean> {
  for (const until = Date.now() + timeoutMs; ;) {
    if (native.scanProcess(pid)?.startTicks !== startTicks) return true
    if (Date.now() > until) return false
    await sleep(5)
  }
}

/** A look at the tree below `target`. Throws NO_SUCH_PROCESS when it is gone or is another process by now. */
export async function inspect(target: Target): Promise<Snapshot> {
  if (target.bootId !== bootId) throw gone(target.pid)
  try {
    const tree = await native.scanTree(target.pid)
    if (tree.processes[0]?.startTicks !== target.startTicks) throw gone(target.pid)
    return { target, ...(tree as unknown as Omit<Snapshot, 'target'>) }
  } catch (thrown) {
    if (thrown instanceof NativeError && thrown.code === 'ESRCH') throw gone(target.pid)
    throw thrown
  }
}

interface Member extends Target {
  readonly state: string
}

/** Members of the tree, parents first. */
async function members(target: Target): Promise<Member[]> {
  const all = await allProcesses()
  const root = all.find((row) => row.pid === target.pid && row.startTicks === target.startTicks)
  if (!root) return []
  const children = byParent(all)
  const found = [root]
  for (const parent of found) found.push(...(children.get(parent.pid) ?? []))
  return found.map(({ pid, startTicks, state }) => ({ pid: pid as Pid, startTicks, bootId, state }))
}

function byParent(rows: readonly NativeProcessStat[]): Map<number, NativeProcessStat[]> {
  const groups = new Map<number, NativeProcessStat[]>()
  for (const row of rows) {
    const siblings = groups.get(row.parentPid)
    if (siblings) siblings.push(row)
    else groups.set(row.parentPid, [row])
  }
  return groups
}

const nameOf = ({ pid, startTicks }: Pick<Target, 'pid' | 'startTicks'>): string => `${pid}:${startTicks}`

/** Does something to every process of the tree, parents first, until no process appears that has not had it. */
async function forTree(target: Target, work: (member: Member) => Promise<unknown>): Promise<void> {
  const done = new Set<string>()
  for (;;) {
    const fresh = (await members(target)).filter((member) => !done.has(nameOf(member)))
    if (fresh.length === 0) return
    for (const member of fresh) {
      done.add(nameOf(member))
      await work(member)
    }
  }
}

export async function killTree(target: Target, signal: number): Promise<void> {
  await forTree(target, (member) => kill(member, signal))
}

const SIGCONT = 18
const SIGSTOP = 19
/** Of processes that do nothing: stopped, traced, dead, or waiting in the kernel for what no signal interrupts. */
const STANDING = ['T', 't', 'Z', 'X', 'D']
const STOP_MS = 1000
const STOP_EVERY_MS = 2

/** A stop signal is sent at once and takes effect a little later. */
async function standStill(target: Target): Promise<void> {
  for (let waited = 0; waited < STOP_MS; waited += STOP_EVERY_MS) {
    if ((await members(target)).every(({ state }) => STANDING.includes(state))) return
    await sleep(STOP_EVERY_MS)
  }
}

/** Stops the tree. Answers those of its processes that were stopped before: they are somebody else's to continue. */
export async function stopTree(target: Target): Promise<readonly string[]> {
  const before: string[] = []
  await forTree(target, async (member) => {
    if (member.state === 'T') before.push(nameOf(member))
    else await kill(member, SIGSTOP)
  })
  await standStill(target)
  return before
}

/** Lets the tree go on, but for those that `stopTree` answered. */
export async function continueTree(target: Target, except: readonly string[]): Promise<void> {
  await forTree(target, async (member) => {
    if (!except.includes(nameOf(member))) await kill(member, SIGCONT)
  })
}

/** Sends a signal to the process, or to its whole group when it leads one. False when it is gone. */
export async function killGroup(target: Target, signal: number): Promise<boolean> {
  return (
    (await withPidfd(target, async (pidfd) => {
      const tree = await native.scanTree(target.pid)
      if (tree.processes[0]?.processGroup !== target.pid) return native.pidfdSend(pidfd, signal)
      // The leader is held by its pidfd and was checked, so the group of that number is its own.
      process.kill(-Number(target.pid), signal)
      return true
    })) ?? false
  )
}

export const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  )

/** Contents of a small text file; undefined when it does not exist. */
export async function readText(path: string): Promise<string | undefined> {
  try {
    // Who may name the file may put a pipe there, that nobody ever writes to.
    return await readFile(path, { encoding: 'utf8', flag: constants.O_RDONLY | constants.O_NONBLOCK })
  } catch (thrown) {
    const code = (thrown as NodeJS.ErrnoException).code
    if (code === 'ENOENT' || code === 'ESRCH' || code === 'ENOTDIR') return undefined
    throw thrown
  }
}

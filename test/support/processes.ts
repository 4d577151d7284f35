/** A look at /proc from the tests' side: independent of the addon, which is under test. */
import { execFile } from 'node:child_process'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { promisify } from 'node:util'
import type { TestContext } from 'vitest'

export interface ProcessInfo {
  readonly pid: number
  readonly parent: number
  readonly group: number
  readonly session: number
  /** Kernel letter: R S D T t Z. */
  readonly state: string
  readonly startTicks: string
  readonly command: string
  readonly executable: string
}

const attempt = <T>(read: () => T): T | undefined => {
  try {
    return read()
  } catch {
    return undefined
  }
}

/** Undefined when there is no such process. A zombie is a process. */
export function processInfo(pid: number): ProcessInfo | undefined {
  const stat = attempt(() => readFileSync(`/proc/${pid}/stat`, 'utf8'))
  if (stat === undefined) return undefined
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const command = attempt(() => readFileSync(`/proc/${pid}/cmdline`, 'utf8')) ?? ''
  return {
    pid,
    state: fields[0] ?? '',
    parent: Number(fields[1]),
    group: Number(fields[2]),
    session: Number(fields[3]),
    startTicks: fields[19] ?? '',
    command: command.split('\0').join(' ').trim() || stat.slice(stat.indexOf('('), stat.lastIndexOf(')') + 1),
    executable: attempt(() => readlinkSync(`/proc/${pid}/exe`)) ?? '',
  }
}

/** Lives and is not a zombie. */
export const isAlive = (pid: number): boolean => !['', 'Z', 'X'].includes(processInfo(pid)?.state ?? '')

export const allPids = (): number[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)

export const allProcesses = (): ProcessInfo[] => allPids().flatMap((pid) => processInfo(pid) ?? [])

/** Lines of the environment that it was started with; none when it is gone or ends. */
export const environment = (pid: number): string[] =>
  (attempt(() => readFileSync(`/proc/${pid}/environ`, 'utf8')) ?? '').split('\0').filter(Boolean)

const COUNT_UNREAD = `
import array, fcntl, os, sys, termios, time
fd, count = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK), array.array('i', [0])
while count[0] == 0:
    fcntl.ioctl(fd, termios.FIONREAD, count)
    time.sleep(0.005)`

/** Waits until something is there to be read in the pipe that is the standard input of the process. */
export async function unread(pid: number): Promise<void> {
  await promisify(execFile)('/usr/bin/python3', ['-c', COUNT_UNREAD, `/proc/${pid}/fd/0`], { timeout: 10_000 })
}

/** Live processes whose environment holds this line: that is how a world knows its own, whoever their parent is by now. */
export function markedProcesses(mark: string): ProcessInfo[] {
  const needle = Buffer.from(`${mark}\0`)
  return allPids().flatMap((pid) => {
    const environment = attempt(() => readFileSync(`/proc/${pid}/environ`))
    const info = environment?.includes(needle) ? processInfo(pid) : undefined
    return info === undefined || info.state === 'Z' ? [] : [info]
  })
}

/** Ends them all, and those that they start meanwhile. */
export function killMarked(mark: string, except: (info: ProcessInfo) => boolean = () => false): ProcessInfo[] {
  const ended: ProcessInfo[] = []
  for (let round = 0; round < 20; round++) {
    const left = markedProcesses(mark).filter((info) => !except(info))
    if (left.length === 0) break
    for (const info of left) {
      ended.push(info)
      attempt(() => process.kill(info.pid, 'SIGKILL'))
    }
  }
  return ended
}

export const children = (pid: number): number[] => allPids().filter((one) => processInfo(one)?.parent === pid)

/** Targets of the open descriptors of a process. */
export const openFiles = (pid: number): string[] =>
  (attempt(() => readdirSync(`/proc/${pid}/fd`)) ?? []).flatMap((fd) => attempt(() => readlinkSync(`/proc/${pid}/fd/${fd}`)) ?? [])

const CAPABILITIES = { CAP_SYS_PTRACE: 19, CAP_SYS_ADMIN: 21, CAP_SYS_RESOURCE: 24, CAP_CHECKPOINT_RESTORE: 40 } as const

export function hasCapability(name: string): boolean {
  const bit = CAPABILITIES[name as keyof typeof CAPABILITIES]
  const effective = /^CapEff:\s*([0-9a-f]+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0'
  return ((BigInt(`0x${effective}`) >> BigInt(bit)) & 1n) === 1n
}

/** Skips the test, saying why, where the host lacks the capability. */
export const requires = (context: TestContext, capability: string): void =>
  context.skip(!hasCapability(capability), `needs ${capability}, which this host does not give`)

/** The process, its descendants and all their threads. */
export function tree(root: number): number[] {
  const parents = new Map(allPids().map((pid) => [pid, processInfo(pid)?.parent]))
  const found = [root]
  for (const pid of found) for (const [child, parent] of parents) if (parent === pid) found.push(child)
  return found.flatMap((pid) => attempt(() => readdirSync(`/proc/${pid}/task`).map(Number)) ?? [])
}

/** A new mount namespace begins with the mounts of everybody, and those of other tests are gone when it is restored. */
export const WITHOUT_OTHERS = `awk '$2 ~ "^/(tmp|run|var)/" { print $2 }' /proc/self/mounts | tac | xargs -r umount -l`

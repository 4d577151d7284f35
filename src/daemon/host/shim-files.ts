/** The files that a shim leaves in its directory: what it holds, and how its job ended. See addon/shim/protocol.h. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import { z } from 'zod'

import { CedanaError } from '../../plugins/contract/errors.js'
import { STDIO_MODES, type ExitStatus, type Pid, type StdioMode, type Target } from '../../plugins/contract/job.js'

export interface ShimState {
  readonly target: Target
  readonly shim: Target
  readonly stdio: StdioMode
  /** The log, or with `pipe` and `tty` the file that gets a copy of the output. */
  readonly log: string | undefined
  /** Milliseconds since 1970. */
  readonly startedAt: number
  /** Inodes of the pipes (`pipe`), for CRIU's keys `pipe:[INODE]`. */
  readonly pipes: { readonly stdin: string; readonly stdout: string; readonly stderr: string } | undefined
  /** The terminal (`tty`): path of the slave, its st_rdev and st_dev, for CRIU's key `tty[RDEV:DEV]`. */
  readonly tty: { readonly path: string; readonly rdev: number; readonly dev: number } | undefined
}

export interface ShimExit {
  readonly pid: Pid
  /** Undefined: not known, of what was another's child. */
  readonly exit: ExitStatus | undefined
  /** Milliseconds since 1970. */
  readonly exitedAt: number
}

const number = z
  .string()
  .regex(/^\d{1,15}$/)
  .transform(Number)
const pid = number.pipe(z.number().min(1)).transform((value) => value as Pid)
const digits = z.string().regex(/^\d{1,20}$/)

const State = z
  .object({
    pid,
    start_ticks: digits,
    boot_id: z.string().regex(/^[0-9a-f-]{36}$/),
    shim_pid: pid,
    shim_start_ticks: digits,
    stdio: z.enum(STDIO_MODES),
    log: z.string().min(1).optional(),
    started_at: number,
    stdin_inode: digits.optional(),
    stdout_inode: digits.optional(),
    stderr_inode: digits.optional(),
    tty: z.string().startsWith('/').optional(),
    tty_rdev: number.optional(),
    tty_dev: number.optional(),
  })
  .transform((it): ShimState => ({
    target: { pid: it.pid, startTicks: it.start_ticks, bootId: it.boot_id },
    shim: { pid: it.shim_pid, startTicks: it.shim_start_ticks, bootId: it.boot_id },
    stdio: it.stdio,
    log: it.log,
    startedAt: it.started_at,
    pipes:
      it.stdin_inode !== undefined && it.stdout_inode !== undefined && it.stderr_inode !== undefined
        ? { stdin: it.stdin_inode, stdout: it.stdout_inode, stderr: it.stderr_inode }
        : undefined,
    tty:
      it.tty !== undefined && it.tty_rdev !== undefined && it.tty_dev !== undefined
        ? { path: it.tty, rdev: it.tty_rdev, dev: it.tty_dev }
        : undefined,
  }))
  .refine(
    (it) => (it.stdio === 'pipe') === (it.pipes !== undefined) && (it.stdio === 'tty') === (it.tty !== undefined),
    'streams do not match the mode',
  )

const Exit = z
  .object({
    pid,
    code: z
      .string()
      .regex(/^(-1|\d{1,3})$/)
      .transform(Number),
    signal: number,
    exited_at: number,
  })
  .refine((it) => it.code === -1 || it.signal === 0, 'both code and signal')
  .transform((it): ShimExit => ({ pid: it.pid, exit: exitStatus(it.code, it.signal), exitedAt: it.exited_at }))

/** As the shim says it: code -1 when a signal ended it, signal 0 when it exited; both when it does not know. */
export function exitStatus(code: number, signal: number): ExitStatus | undefined {
  if (code === -1 && signal === 0) return undefined
  return signal > 0 ? { signal } : { code }
}

/** Undefined while the shim has not written it: it never started, or is just about to. */
export async function readShimState(directory: string): Promise<ShimState | undefined> {
  return parse(State, await readText(join(directory, 'state')), join(directory, 'state'))
}

/** Undefined while the job runs, and for ever when its shim was killed. */
export async function readShimExit(directory: string): Promise<ShimExit | undefined> {
  return parse(Exit, await readText(join(directory, 'exit')), join(directory, 'exit'))
}

/** The answer to a status request: the lines of both files. */
export function parseShimStatus(text: string): { readonly state: ShimState; readonly exit: ShimExit | undefined } {
  const end = text.indexOf('\npid ') + 1
  const [stateText, exitText] = end === 0 ? [text, undefined] : [text.slice(0, end), text.slice(end)]
  return { state: parse(State, stateText, 'status of the shim'), exit: parse(Exit, exitText, 'status of the shim') }
}

async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new CedanaError('BUG', `cannot read ${path}`, { cause: error })
  }
}

function parse<T>(schema: z.ZodType<T>, text: string, what: string): T
function parse<T>(schema: z.ZodType<T>, text: string | undefined, what: string): T | undefined
function parse<T>(schema: z.ZodType<T>, text: string | undefined, what: string): T | undefined {
  if (text === undefined) return undefined
  const lines = text.endsWith('\n') ? text.slice(0, -1).split('\n') : []
  const parsed = schema.safeParse(Object.fromEntries(lines.map((line) => [line.split(' ', 1)[0], line.slice(line.indexOf(' ') + 1)])))
  if (parsed.success) return parsed.data
  throw new CedanaError('BUG', `${what} is damaged: ${z.prettifyError(parsed.error).replaceAll('\n', ' ')}`, { detail: { text } })
}

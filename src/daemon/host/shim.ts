/** Starts the shim of a job: the small process that outlives the daemon. The other side: addon/shim, told by protocol.h. */
import { closeSync } from 'node:fs'
import { Socket } from 'node:net'
import { getSystemErrorMap } from 'node:util'
import { native } from '../../../addon/index.js'
import type { PidfdHandle } from '../../../addon/native.js'
import { CedanaError, type ErrorCode, reasonOf } from '../../plugins/contract/errors.js'
import type { Caller, Pid, StdioMode, Target } from '../../plugins/contract/job.js'

export { ShimConnection, waitForShimExit, type PendingStdin, type ShimOutput, type ShimStatus } from './shim-connection.js'
export { readShimExit, readShimState, type ShimExit, type ShimState } from './shim-files.js'

/** The numbers that the job's streams have in CRIU, for inherit_fd. Which exist depends on the stdio mode. */
export const SHIM_SLOTS = { stdin: 10, stdout: 11, stderr: 12, tty: 13, log: 14, null: 15, logCopy: 16, ttyCopy: 17 } as const
/** The number of `restore.open[index]` in CRIU. */
export const shimOpenSlot = (index: number): number => 20 + index

const RPC_FD = 3
const LAST_PASSED_FD = 8
const REPORT_FD = 9
/** As a descriptor of a child: /dev/null of the first three, none of the others. */
const NOTHING = -1
const SIGTERM = 15

export interface ShimRequest {
  /** Path of the program cedana-shim. */
  readonly shimPath: string
  /** Directory of the job, 0700, made by the caller and otherwise left to the shim. */
  readonly directory: string
  readonly stdio: StdioMode
  /** Program and arguments; with `restore` those of CRIU, ending in `swrk 3`; with `launcher` its. */
  readonly argv: readonly [string, ...string[]]
  readonly environment: Readonly<Record<string, string>>
  readonly workingDirectory?: string | undefined
  /** Absent: the daemon's own. */
  readonly user?: Pick<Caller, 'uid' | 'gid' | 'groups'> | undefined
  /** `log`: stdout and stderr. `pipe`, `tty`: a copy of the output. Appended to, never truncated; a symbolic link is refused. */
  readonly log?: string | undefined
  /** Opens the log with the rights of `user`. */
  readonly logAsUser?: boolean | undefined
  readonly windowSize?: { readonly rows: number; readonly columns: number } | undefined
  /** No output is read before somebody attaches, for at most 10 s. */
  readonly waitAttach?: boolean | undefined
  /** With `inherit`: in the caller's session and process group, so that its terminal's keys reach the job. */
  readonly foreground?: boolean | undefined
  /** With `inherit`: as many descriptors of this process, from 3 on, are the program's too. */
  readonly preserve?: number | undefined
  /** Input for the job before anything else; the file is unlinked. */
  readonly stdinFile?: string | undefined
  /** Stdin ends after it. */
  readonly stdinEnded?: boolean | undefined
  readonly restore?:
    | {
        /** CRIU's end of the RPC socket; the caller closes it after the launch. */
        readonly rpcFd: number
        /** Further descriptors for CRIU, numbered from 4 on. */
        readonly pass?: readonly number[] | undefined
        readonly open: readonly { readonly path: string; readonly flags: number }[]
      }
    | undefined
  /**
   * `argv` is no program but what makes one, such as `runc run --detach --pid-file …`. It runs to its end on the streams of the job, and the
   * job's root is the process that it names and leaves to the shim. Why one fails is in a log of its own; its last line on
   * stderr becomes part of the error where it is nobody else's (`pipe`, or with `consoleSocket`).
   */
  readonly launcher?:
    | {
        /** Where it writes the root's PID. A new name in `directory`, gone afterwards. */
        readonly pidFile: string
        /** With `tty`: it makes the terminal and sends it there, gone afterwards. Where its path is too long for a socket, `argv` is given another. */
        readonly consoleSocket?: string | undefined
        /** The root is another's child: it is named before it is started, and the end of the file tells that it is held. */
        readonly foreign?: boolean | undefined
      }
    | undefined
  /**
   * Aborting gives a restore up: CRIU and what it made are killed. Of a launcher, what it waits for is killed: it sees its work fail and has 5 s
   * to undo it (cgroups, its own state), then it is killed with all that is left. A plain start is too short to be aborted.
   */
  readonly signal?: AbortSignal | undefined
}

export interface LaunchedShim {
  /** The root of the job. */
  readonly pid: Pid
  readonly startTicks: string
  readonly shim: Target
  /** Resolves when the shim has ended, which is when the last process of the job has. Not watched after the daemon's end. */
  readonly done: Promise<void>
}

/** Resolves once the job runs and its shim's `state` is on disk. A failure has left nothing behind. */
export async function launchShim(request: ShimRequest): Promise<LaunchedShim> {
  const { child, ended, report } = start(request)
  const giveUp = (): void => {
    if (request.restore !== undefined || request.launcher !== undefined) native.pidfdSend(child, SIGTERM)
  }
  request.signal?.addEventListener('abort', giveUp)
  if (request.signal?.aborted === true) giveUp()
  try {
    const line = await readLine(report)
    const [word, pid, startTicks, shimPid, shimStartTicks, bootId] = line.split(' ')
    if (word === 'started' && startTicks !== undefined && shimStartTicks !== undefined && bootId !== undefined) {
      const done = ended.then(() => undefined)
      return { pid: Number(pid) as Pid, startTicks, shim: { pid: Number(shimPid) as Pid, startTicks: shimStartTicks, bootId }, done }
    }
    await native.pidfdWait(child) // so that nothing of it is left when the caller hears of it
    throw startFailed(request, line)
  } finally {
    request.signal?.removeEventListener('abort', giveUp)
    native.pidfdClose(child)
  }
}

interface Started {
  readonly child: PidfdHandle
  readonly ended: Promise<unknown>
  readonly report: Socket
}

function start(request: ShimRequest): Started {
  const { readFd, writeFd } = native.pipe()
  try {
    const environment = Object.entries(request.environment).map(([name, value]) => `${name}=${value}`)
    const spawned = native.spawn(
      [request.shimPath, ...shimArguments(request)],
      environment,
      shimDescriptors(request, writeFd),
      request.foreground !== true,
    )
    return { ...spawned, report: new Socket({ fd: readFd, readable: true, writable: false }) }
  } catch (thrown) {
    closeSync(readFd)
    throw cannotRunShim(request, thrown)
  } finally {
    closeSync(writeFd)
  }
}

function shimArguments(request: ShimRequest): string[] {
  const { user, windowSize, launcher } = request
  const option = (name: string, value: string | number | undefined): string[] => (value === undefined ? [] : [`--${name}`, String(value)])
  const flag = (name: string, value: boolean | undefined): string[] => (value === true ? [`--${name}`] : [])
  return [
    ...option('dir', request.directory),
    ...option('stdio', request.stdio),
    ...flag('restore', request.restore !== undefined),
    ...option('log', request.log),
    ...flag('log-as-user', request.logAsUser),
    ...option('uid', user?.uid),
    ...option('gid', user?.gid),
    ...option('groups', user?.groups.join(',')),
    ...option('cwd', request.workingDirectory),
    ...option('rows', windowSize?.rows),
    ...option('columns', windowSize?.columns),
    ...flag('wait-attach', request.waitAttach),
    ...flag('foreground', request.foreground),
    ...option('preserve', request.preserve),
    ...option('stdin-file', request.stdinFile),
    ...flag('stdin-eof', request.stdinEnded),
    ...(request.restore?.open ?? []).flatMap(({ path, flags }, index) =>
      option('open', `${String(shimOpenSlot(index))}:${String(flags)}:${path}`),
    ),
    ...option('pid-file', launcher?.pidFile),
    ...flag('foreign', launcher?.foreign),
    ...option('console-socket', launcher?.consoleSocket),
    '--',
    ...request.argv,
  ]
}

function shimDescriptors({ stdio, restore, preserve = 0 }: ShimRequest, reportFd: number): number[] {
  const descriptors = stdio === 'inherit' ? [0, 1, 2] : [NOTHING, NOTHING, NOTHING]
  if (restore !== undefined) descriptors.push(restore.rpcFd, ...(restore.pass ?? []))
  else descriptors.push(...Array.from({ length: preserve }, (_, index) => RPC_FD + index))
  if (descriptors.length > LAST_PASSED_FD + 1)
    throw new CedanaError('BUG', `CRIU can be passed descriptors ${String(RPC_FD)} to ${String(LAST_PASSED_FD)} only`)
  while (descriptors.length < REPORT_FD) descriptors.push(NOTHING)
  return [...descriptors, reportFd]
}

/** Up to the first newline, or to the end: the shim is gone when there is none. */
async function readLine(stream: Socket): Promise<string> {
  let text = ''
  stream.setEncoding('utf8')
  try {
    for await (const chunk of stream) text += String(chunk)
  } catch {
    // Broken off is as good as ended.
  }
  return text.split('\n', 1)[0] ?? ''
}

function cannotRunShim(request: ShimRequest, cause: unknown): CedanaError {
  return new CedanaError('START_FAILED', `cannot run the shim ${request.shimPath}: ${reasonOf(cause)}`, {
    cause,
    hint: 'build it with: npm run build:native',
  })
}

function startFailed(request: ShimRequest, line: string): CedanaError {
  const failed = /^failed (\w+) (\d+) (.*)$/.exec(line)
  if (failed?.[1] === undefined)
    return new CedanaError('START_FAILED', 'the shim of the job was killed before the job was started', { detail: { step: 'shim' } })
  const [, step, errnoText, text = ''] = failed
  const errno = Number(errnoText)
  if (step === 'launcher') return launcherFailed(request, text)
  const { code, message, hint } = explain(request, step, errno, text)
  return new CedanaError(errno === 28 || errno === 122 ? 'NO_SPACE' : code, message, {
    detail: { step, errno, ...(errno === 0 ? {} : { errnoName: getSystemErrorMap().get(-errno)?.[0] }), text },
    ...(hint === undefined ? {} : { hint }),
  })
}

/** The caller adds what the launcher's own log says. */
function launcherFailed(request: ShimRequest, told: string): CedanaError {
  const [, code, signal, text = ''] = /^(-1|\d+) (\d+) (.*)$/.exec(told) ?? []
  return new CedanaError('START_FAILED', `${JSON.stringify(request.argv[0])} ${text}`, {
    detail: { step: 'launcher', text, ...(signal === '0' ? { exitCode: Number(code) } : { signal: Number(signal) }) },
  })
}

interface Explanation {
  readonly code: ErrorCode
  readonly message: string
  readonly hint?: string
}

function explain(request: ShimRequest, step: string, errno: number, text: string): Explanation {
  const reason = reasonOf({ errno, message: `error ${errno}` })
  const program = JSON.stringify(request.argv[0])
  const isDenied = errno === 1 || errno === 13
  const denied: ErrorCode = isDenied ? 'PERMISSION_DENIED' : 'START_FAILED'
  switch (step) {
    case 'exec':
      if (errno === 2) {
        const hint = request.argv[0].includes('/')
          ? 'check the path; of a script, check also the interpreter in its first line'
          : 'name it with its path, or set PATH in the environment of the job'
        return { code: 'START_FAILED', message: `cannot run ${program}: ${reason}`, hint }
      }
      return {
        code: 'START_FAILED',
        message: `cannot run ${program}: ${reason}`,
        ...(isDenied ? { hint: 'check that it is a file with execute permission for the user of the job' } : {}),
      }
    case 'cwd':
      return {
        code: denied,
        message: `cannot enter the working directory ${JSON.stringify(request.workingDirectory ?? '/')}: ${reason}`,
        hint: 'it must exist and be open to the user of the job',
      }
    case 'log':
      return {
        code: denied,
        message: `cannot open the log ${JSON.stringify(request.log ?? '')}: ${reason}`,
        hint: errno === 40 ? 'a symbolic link is not followed: name the file itself' : 'choose another file with --out',
      }
    case 'ids':
      return { code: denied, message: `cannot become user ${String(request.user?.uid)}, group ${String(request.user?.gid)}: ${reason}` }
    case 'open':
      return { code: 'START_FAILED', message: `cannot open ${JSON.stringify(text)} for the restored process: ${reason}` }
    case 'criu':
      if (errno === 0) return { code: 'CRIU_RESTORE_FAILED', message: text }
      return { code: 'CRIU_RESTORE_FAILED', message: `cannot run criu as ${program}: ${reason}`, hint: 'see: cedana check' }
    default:
      return { code: 'START_FAILED', message: `the shim cannot set up the job: ${text}: ${reason}` }
  }
}

/** Wire ↔ domain. Names are equal on both sides; what differs is said here: optional things, enums, exit statuses, free-form objects. */
import { CedanaError } from '../../plugins/contract/errors.js'
import { STDIO_MODES, type ExitStatus, type StdioMode } from '../../plugins/contract/job.js'
import type { Problem } from '../../plugins/contract/plan.js'
import type * as domain from '../operations/verbs.js'
import { StdioMode as WireStdio } from './gen/cedana.js'
import type * as wire from './gen/cedana.js'

type Struct = Record<string, unknown>

/**
 * A value as google.protobuf.Struct can hold it: absent members left out, 64-bit integers as text, bytes as base64.
 * Copies, so that a name such as `__proto__` from a client stays a plain member.
 */
function plainValue(value: unknown): unknown {
  if (typeof value === 'bigint') return value.toString()
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64')
  if (Array.isArray(value)) return value.map((one) => plainValue(one) ?? null)
  if (typeof value === 'object' && value !== null) return plain(value)
  return typeof value === 'function' || typeof value === 'symbol' ? undefined : value
}
export function plain(object: object): Struct {
  const entries = Object.entries(object).flatMap(([name, value]) => {
    const converted = plainValue(value)
    return converted === undefined ? [] : [[name, converted] as const]
  })
  return Object.fromEntries(entries)
}
const plainOrNone = (object: object | undefined): Struct | undefined => (object === undefined ? undefined : plain(object))
const integer = (value: number): number => (Number.isFinite(value) ? Math.round(value) : 0)

const STDIO: Readonly<Record<StdioMode, WireStdio>> = {
  log: WireStdio.STDIO_MODE_LOG,
  pipe: WireStdio.STDIO_MODE_PIPE,
  tty: WireStdio.STDIO_MODE_TTY,
  inherit: WireStdio.STDIO_MODE_INHERIT,
  none: WireStdio.STDIO_MODE_NONE,
}
const toWireStdio = (mode: StdioMode | undefined): WireStdio => (mode === undefined ? WireStdio.STDIO_MODE_UNSPECIFIED : STDIO[mode])
function fromWireStdio(value: WireStdio): StdioMode | undefined {
  const mode = STDIO_MODES.find((one) => STDIO[one] === value)
  if (mode === undefined && value !== WireStdio.STDIO_MODE_UNSPECIFIED) throw new CedanaError('BAD_OPTIONS', `unknown stdio mode ${value}`)
  return mode
}

/** A shell's way to say both in one number. */
const toWireExit = ({ code, signal }: ExitStatus): wire.ExitStatus =>
  signal ? { code: 128 + signal, signal } : { code: code ?? 0, signal: 0 }
const fromWireExit = ({ code, signal }: wire.ExitStatus): ExitStatus => (signal ? { signal } : { code })

const toWireStep = (step: domain.Step): wire.Step => ({ ...step, durationNs: integer(step.durationNs), bytes: integer(step.bytes) })
const toWireProblem = (problem: Problem): wire.Problem => ({ ...problem, hint: problem.hint ?? '', pid: problem.pid ?? 0 })
const fromWireProblem = ({ severity, id, message, hint, pid }: wire.Problem): Problem => ({
  severity: severity === 'error' ? 'error' : 'warning',
  id,
  message,
  ...(hint === '' ? {} : { hint }),
  ...(pid === 0 ? {} : { pid }),
})

// Requests.

const switches = (request: domain.CriuSwitches) => ({ external: [...request.external] })

export const toWireRun = (request: domain.RunRequest): wire.RunRequest => ({
  ...request,
  options: plain(request.options),
  stdio: toWireStdio(request.stdio),
})
export const fromWireRun = (request: wire.RunRequest): domain.RunRequest => ({
  ...request,
  options: plain(request.options ?? {}),
  stdio: fromWireStdio(request.stdio) ?? 'log',
})

export const toWireManage = (request: domain.ManageRequest): wire.ManageRequest => ({ ...request, options: plain(request.options) })
export const fromWireManage = (request: wire.ManageRequest): domain.ManageRequest => ({ ...request, options: plain(request.options ?? {}) })

export const toWireDump = (request: domain.DumpRequest): wire.DumpRequest => ({
  ...request,
  ...switches(request),
  target: plain(request.target),
  options: plain(request.options),
})
export const fromWireDump = (request: wire.DumpRequest): domain.DumpRequest => ({
  ...request,
  target: plain(request.target ?? {}),
  options: plain(request.options ?? {}),
  level: request.level,
  keepLast: request.keepLast,
  leaveRunning: request.leaveRunning,
  tcpEstablished: request.tcpEstablished,
  skipInFlight: request.skipInFlight,
  fileLocks: request.fileLocks,
  shellJob: request.shellJob,
  linkRemap: request.linkRemap,
})

export const toWireRestore = (request: domain.RestoreRequest): wire.RestoreRequest => ({
  ...request,
  ...switches(request),
  options: plain(request.options),
  stdio: toWireStdio(request.stdio),
  gpus: [...request.gpus],
})
export const fromWireRestore = (request: wire.RestoreRequest): domain.RestoreRequest => ({
  ...request,
  options: plain(request.options ?? {}),
  stdio: fromWireStdio(request.stdio),
  tcpEstablished: request.tcpEstablished,
  tcpClose: request.tcpClose,
  leaveStopped: request.leaveStopped,
  fileLocks: request.fileLocks,
  shellJob: request.shellJob,
  linkRemap: request.linkRemap,
})

export const toWireTarget = (request: domain.TargetRequest): wire.FreezeRequest => ({ ...request, target: plain(request.target) })
export const fromWireTarget = (request: wire.FreezeRequest): domain.TargetRequest => ({ ...request, target: plain(request.target ?? {}) })

export const toWireQuery = (request: Parameters<domain.Verbs['query']>[1]): wire.QueryRequest => ({
  ...request,
  options: plain(request.options),
})
export const fromWireQuery = (request: wire.QueryRequest): Parameters<domain.Verbs['query']>[1] => ({
  ...request,
  options: plain(request.options ?? {}),
})

// Answers.

export const toWireStarted = (started: domain.Started): wire.RunResponse => ({
  ...started,
  messages: [...started.messages],
  steps: started.steps.map(toWireStep),
})

export const toWireProgress = (progress: domain.Progress): wire.Progress => ({
  ...progress,
  bytes: integer(progress.bytes),
  totalBytes: integer(progress.totalBytes),
})

export const toWireDumped = (result: domain.DumpResult): wire.DumpResult => ({
  ...result,
  paths: [...result.paths],
  messages: [...result.messages],
  steps: result.steps.map(toWireStep),
  problems: result.problems.map(toWireProblem),
  state: plainOrNone(result.state),
  plan: plainOrNone(result.plan),
  frozenUs: integer(result.frozenUs),
  criuStatistics: { ...result.criuStatistics },
})
export const fromWireDumped = (result: wire.DumpResult): domain.DumpResult => ({
  ...result,
  problems: result.problems.map(fromWireProblem),
})

export const toWireRestored = (result: domain.RestoreResult): wire.RestoreResult => ({
  ...toWireStarted(result),
  problems: result.problems.map(toWireProblem),
  state: plainOrNone(result.state),
  plan: plainOrNone(result.plan),
  criuStatistics: { ...result.criuStatistics },
})
export const fromWireRestored = (result: wire.RestoreResult): domain.RestoreResult => ({
  ...result,
  problems: result.problems.map(fromWireProblem),
})

export const toWireJob = (job: domain.JobView): wire.Job => ({
  ...job,
  args: [...job.args],
  exit: job.exit === undefined ? undefined : toWireExit(job.exit),
  details: Object.keys(job.details).length === 0 ? undefined : plain(job.details),
  state: plainOrNone(job.state),
  latestCheckpoint: job.latestCheckpoint,
})
export const fromWireJob = (job: wire.Job): domain.JobView => ({
  ...job,
  exit: job.exit === undefined ? undefined : fromWireExit(job.exit),
  details: job.details ?? {},
})

export const toWireInspected = (result: Awaited<ReturnType<domain.Verbs['inspectCheckpoint']>>): wire.InspectCheckpointResponse => ({
  checkpoint: result.checkpoint,
  manifest: plain(result.manifest),
  contents: plain(result.contents),
})

export const toWireQueried = (result: Awaited<ReturnType<domain.Verbs['query']>>): wire.QueryResponse => ({
  columns: [...result.columns],
  rows: result.rows.map(({ cells, state }) => ({
    cells: { ...cells },
    state: typeof state === 'object' && state !== null ? plain(state) : undefined,
  })),
  messages: [...result.messages],
})
export const fromWireQueried = (response: wire.QueryResponse): Awaited<ReturnType<domain.Verbs['query']>> => ({
  ...response,
  rows: response.rows.map(({ cells, state }) => ({ cells, state })),
})

export const toWireSection = (section: domain.CheckSection): wire.CheckSection => ({
  name: section.name,
  components: section.components.map((one) => ({ ...one, warnings: [...one.warnings], errors: [...one.errors] })),
})

export const toWirePlugin = (plugin: domain.PluginView): wire.Plugin => ({
  ...plugin,
  verbs: { ...plugin.verbs },
  features: { ...plugin.features },
  needs: [...plugin.needs],
})
export const fromWirePlugin = (plugin: wire.Plugin): domain.PluginView => ({
  ...plugin,
  origin: plugin.origin as domain.PluginView['origin'],
})

// The two streams of an attachment.

/** The shim takes 16 bits. */
const toWireSize = ({ rows, columns }: domain.WindowSize): wire.WindowSize => ({
  rows: Math.min(rows, 0xffff),
  columns: Math.min(columns, 0xffff),
})

export function toWireInput(input: domain.AttachInput): wire.AttachRequest {
  switch (input.kind) {
    case 'stdin':
      return { input: { $case: 'stdin', stdin: Buffer.from(input.bytes) } }
    case 'eof':
      return { input: { $case: 'stdinEof', stdinEof: true } }
    case 'window':
      return { input: { $case: 'windowSize', windowSize: toWireSize(input.size) } }
  }
}
/** Undefined for a message that is no input. */
export function fromWireInput({ input }: wire.AttachRequest): domain.AttachInput | undefined {
  switch (input?.$case) {
    case 'stdin':
      return { kind: 'stdin', bytes: input.stdin }
    case 'stdinEof':
      return { kind: 'eof' }
    case 'windowSize':
      return { kind: 'window', size: toWireSize(input.windowSize) }
    default:
      return undefined
  }
}

export function toWireOutput(output: domain.AttachOutput): wire.AttachResponse {
  switch (output.kind) {
    case 'tty':
      return { output: { $case: 'tty', tty: output.tty } }
    case 'stdout':
      return { output: { $case: 'stdout', stdout: Buffer.from(output.bytes) } }
    case 'stderr':
      return { output: { $case: 'stderr', stderr: Buffer.from(output.bytes) } }
    case 'exit':
      return { output: { $case: 'exit', exit: toWireExit(output.exit) } }
  }
}
/** Undefined for what a newer daemon may send. */
export function fromWireOutput({ output }: wire.AttachResponse): domain.AttachOutput | undefined {
  switch (output?.$case) {
    case 'tty':
      return { kind: 'tty', tty: output.tty }
    case 'stdout':
      return { kind: 'stdout', bytes: output.stdout }
    case 'stderr':
      return { kind: 'stderr', bytes: output.stderr }
    case 'exit':
      return { kind: 'exit', exit: fromWireExit(output.exit) }
    default:
      return undefined
  }
}

/** `attach`: the streams of one client, joined to those that the shim holds. */
import { CedanaError } from '../../plugins/contract/errors.js'
import { ShimConnection } from '../host/shim.js'
import type { JobRecord } from '../jobs/job.js'
import { targetOf } from '../jobs/table.js'
import { mayUseJob } from './authorize.js'
import type { Environment } from './environment.js'
import { hostFor } from './host.js'
import { namedJob } from './target.js'
import type { AttachInput, AttachOutput, AttachRequest, Call, WindowSize } from './verbs.js'

function findJob(env: Environment, call: Call, request: AttachRequest): JobRecord {
  if (request.jid !== '') return namedJob(env, call.caller, request.jid)
  if (request.pid === 0) throw new CedanaError('BAD_OPTIONS', 'missing PID')
  const job = env.jobs.all().find((one) => one.state === 'running' && one.pid === request.pid)
  if (!job) throw new CedanaError('NOT_ATTACHABLE', `process ${request.pid} has no IO slave`)
  mayUseJob(call.caller, job)
  return job
}

type Resize = (size: WindowSize) => Promise<void>

/** The terminal that the shim holds may be joined to one that the runtime does. */
function resizer(env: Environment, call: Call, job: JobRecord, connection: ShimConnection): Resize {
  return async (size) => {
    await connection.resize(size)
    if (job.stdio !== 'tty' || !env.runtimes.supports(job.type, 'resize')) return
    const resize = await env.runtimes.verb(job.type, 'resize')
    await resize(hostFor(env, call.signal), targetOf(job), size, job.details).catch((thrown: unknown) => {
      env.log.warn({ job: job.jid, err: CedanaError.from(thrown).message }, 'a terminal could not be resized')
    })
  }
}

/** Hands input on until it ends, the client goes away, or the shim does. */
async function forward(connection: ShimConnection, resize: Resize, input: AsyncIterable<AttachInput>): Promise<void> {
  for await (const part of input) {
    if (part.kind === 'stdin') await connection.write(part.bytes)
    else if (part.kind === 'eof') await connection.end()
    else await resize(part.size)
  }
}

export async function* attach(
  env: Environment,
  call: Call,
  request: AttachRequest,
  input: AsyncIterable<AttachInput>,
): AsyncIterable<AttachOutput> {
  const job = findJob(env, call, request)
  // Without a daemon the job has the caller's own streams: all there is to say is how it ended.
  if (job.stdio === 'inherit') {
    const ended = await env.jobs.ended(job.jid)
    yield { kind: 'exit', exit: ended.exit ?? { code: -1 } }
    return
  }
  if (job.stdio !== 'pipe' && job.stdio !== 'tty') {
    throw new CedanaError('NOT_ATTACHABLE', `process ${job.pid} has no IO slave`, {
      hint: job.log === '' ? 'only jobs started with --attach, --attachable or --tty can be attached to' : `its output goes to ${job.log}`,
    })
  }
  // A job that has ended may still have output that nobody has taken: its shim decides, not its state.
  const connection = await ShimConnection.open(job.directory).catch((cause: unknown) => {
    throw new CedanaError('JOB_NOT_RUNNING', `job ${job.jid} is not running (status: halted)`, { cause })
  })
  const detach = (): void => {
    connection.close()
  }
  call.signal.addEventListener('abort', detach)
  try {
    yield { kind: 'tty', tty: job.stdio === 'tty' }
    const resize = resizer(env, call, job, connection)
    if (request.windowSize) await resize(request.windowSize)
    // A client that goes away breaks its input; the output then ends by the abort.
    forward(connection, resize, input).catch(() => undefined)
    for await (const output of connection.attach(true)) {
      if (output.kind === 'exit' && !output.exit) yield { kind: 'exit', exit: (await env.jobs.ended(job.jid)).exit ?? { code: -1 } }
      else yield output as AttachOutput
    }
  } finally {
    call.signal.removeEventListener('abort', detach)
    connection.close()
  }
}

/** `attach`: the streams of one client, joined to those that the shim holds. */
import { CedanaError } from '../../plugins/contract/errors.js'
import { ShimConnection } from '../host/shim.js'
import type { JobRecord } from '../jobs/job.js'
import { mayUseJob } from './authorize.js'
import type { Environment } from './environment.js'
import type { AttachInput, AttachOutput, AttachRequest, Call } from './verbs.js'

function findJob(env: Environment, call: Call, request: AttachRequest): JobRecord {
  if (request.jid !== '') {
    const job = env.jobs.get(request.jid)
    mayUseJob(call.caller, job)
    return job
  }
  if (request.pid === 0) throw new CedanaError('BAD_OPTIONS', 'missing PID')
  const job = env.jobs.all().find((one) => one.state === 'running' && one.pid === request.pid)
  if (!job) throw new CedanaError('NOT_ATTACHABLE', `process ${request.pid} has no IO slave`)
  mayUseJob(call.caller, job)
  return job
}

/** Hands input on until it ends, the client goes away, or the shim does. */
async function forward(connection: ShimConnection, input: AsyncIterable<AttachInput>): Promise<void> {
  for await (const part of input) {
    if (part.kind === 'stdin') await connection.write(part.bytes)
    else if (part.kind === 'eof') await connection.end()
    else await connection.resize(part.size)
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
    if (request.windowSize) await connection.resize(request.windowSize)
    // A client that goes away breaks its input; the output then ends by the abort.
    forward(connection, input).catch(() => undefined)
    yield* connection.attach(true)
  } finally {
    call.signal.removeEventListener('abort', detach)
    connection.close()
  }
}

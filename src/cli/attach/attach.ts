/** A terminal or pipes, connected to the standard streams of a job until one of the two goes. */
import { setTimeout as sleep } from 'node:timers/promises'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { ExitStatus } from '../../plugins/contract/job.js'
import type { Engine, JobView } from '../../daemon/api/engine.js'
import { EXIT } from '../exit-codes.js'
import type { Session } from '../session.js'
import { windowSize } from '../shared-flags.js'
import { DetachKeys } from './detach-keys.js'
import { InputSource } from './input.js'
import { flushed, write } from './write.js'

interface Attachment {
  /** One of the two. */
  readonly jid: string
  readonly pid: number
  readonly detachKeys: readonly number[]
}

/** As a shell reports it. */
export const exitCode = ({ code, signal }: ExitStatus): number => (signal ? 128 + signal : (code ?? 0) & 0xff)

const nameOf = ({ jid, pid }: Attachment): string => (jid === '' ? `process ${pid}` : `job ${jid}`)

/** Returns the exit code: of the job, or that of a detach. */
export async function attach(session: Session, engine: Engine, attachment: Attachment): Promise<number> {
  const { jid, pid } = attachment
  const { stdin, stdout, stderr } = session.world
  const detach = new AbortController()
  const signal = AbortSignal.any([session.signal, detach.signal])
  const keys = new DetachKeys(attachment.detachKeys)
  let isRaw = false
  let isConnected = false
  const input = new InputSource(stdin, (bytes) => {
    if (!isRaw) return bytes
    const { pass, isDetach } = keys.feed(bytes)
    if (isDetach) detach.abort()
    return pass
  })
  const onResize = (): void => {
    const size = windowSize(session.world)
    if (size !== undefined) input.resize(size)
  }
  const closed = new AbortController()
  const onOutputError = (): void => {
    closed.abort()
    detach.abort()
  }
  stdout.on('error', onOutputError)
  const restoreTerminal = (): void => {
    if (isRaw) stdin.setRawMode(false)
    isRaw = false
  }
  process.once('exit', restoreTerminal)
  try {
    for await (const output of engine.attach({ jid, pid, windowSize: windowSize(session.world) }, input, { signal })) {
      isConnected = true
      if (output.kind === 'exit') {
        // A terminal is as it was before anything more is said.
        restoreTerminal()
        return await ended(session, engine, attachment, output.exit)
      }
      if (output.kind !== 'tty') await write(output.kind === 'stdout' ? stdout : stderr, output.bytes)
      else if (output.tty && stdin.isTTY) {
        // Every key is the job's now, Ctrl-C too; only the detach keys are ours.
        stdin.setRawMode(true)
        isRaw = true
        // Its output is as a terminal wants it already, and Node's raw mode would still end each line once more. The old settings come back all at once.
        const { spawnSync } = await import('node:child_process')
        spawnSync('stty', ['-opost'], { stdio: ['inherit', 'ignore', 'ignore'] })
        stdout.on('resize', onResize)
      }
    }
  } catch (thrown) {
    if (!signal.aborted) throw isConnected ? lost(attachment, thrown) : thrown
  } finally {
    stdout.off('resize', onResize).off('error', onOutputError)
    input.close()
    restoreTerminal()
    process.off('exit', restoreTerminal)
    await Promise.all([flushed(stdout), flushed(stderr)])
  }
  if (!signal.aborted) {
    // The shim went away without a word: the books may know more.
    const job = jid === '' ? undefined : await engine.getJob(jid).catch(() => undefined)
    if (job?.exit !== undefined && !job.isRunning) return exitCode(job.exit)
    throw lost(attachment, undefined)
  }
  if (closed.signal.aborted) return EXIT.closed
  session.note('Detached')
  return EXIT.detached
}

/** The job when its end is in the books, which is a moment after its streams say so. */
async function endedJob(engine: Engine, attachment: Attachment): Promise<JobView | undefined> {
  for (let tries = 0; tries < 20; tries++) {
    const job = await jobOf(engine, attachment).catch(() => undefined)
    if (job === undefined || job.endReason !== '') return job
    await sleep(100)
  }
  return undefined
}

async function jobOf(engine: Engine, { jid, pid }: Attachment): Promise<JobView | undefined> {
  if (jid !== '') return engine.getJob(jid)
  const jobs = await engine.listJobs({ allHosts: false, jids: [], brief: false })
  return jobs.find((job) => job.pid === pid)
}

/** CRIU ends the tree it has dumped by SIGKILL: for the job that is no end. */
async function ended(session: Session, engine: Engine, attachment: Attachment, exit: ExitStatus): Promise<number> {
  if (exit.signal !== 9) return exitCode(exit)
  const job = await endedJob(engine, attachment)
  if (job?.endReason !== 'dumped') return exitCode(exit)
  session.note(`Job ${job.jid} was dumped; bring it back with: cedana restore job ${job.jid}`)
  return EXIT.dumped
}

function lost(attachment: Attachment, cause: unknown): unknown {
  // A daemon that stops in order cancels its calls. What this side cancels does not come here.
  const isGone = cause === undefined || (cause instanceof CedanaError && ['DAEMON_UNREACHABLE', 'CANCELLED'].includes(cause.code))
  if (!isGone) return cause
  const again = attachment.jid === '' ? `cedana attach ${attachment.pid}` : `cedana job attach ${attachment.jid}`
  return new CedanaError('DAEMON_UNREACHABLE', `the connection to the daemon was lost; ${nameOf(attachment)} goes on`, {
    cause,
    hint: `when the daemon is back: ${again}`,
  })
}

/** `run`: a job is in the database before its program starts, and the caller hears of it after both are true. */
import { fstatSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Host } from '../../plugins/contract/host.js'
import type { Caller, ExitStatus, StdioMode, Target } from '../../plugins/contract/job.js'
import type { Problem, Program, RunPlan } from '../../plugins/contract/plan.js'
import { writeFileAs } from '../host/files.js'
import { removeDirectory } from '../host/mounts.js'
import * as processes from '../host/processes.js'
import type { JobRecord } from '../jobs/job.js'
import { checkJobId, randomJobId } from '../jobs/names.js'
import { begin, ensureDirectories, type Environment, jobsDirectory, refuseProblems } from './environment.js'
import { startProgram, toldPid } from './program.js'
import { removeTarget, undoStart } from './starts.js'
import type { Call, RunRequest, Started } from './verbs.js'

/** [must] the place where users look. */
export const defaultLog = (jid: string): string => `/var/log/cedana-output-${jid}.log`

const SIGKILL = 9

export function newJob(env: Environment, parts: Partial<JobRecord> & Pick<JobRecord, 'jid' | 'type' | 'owner' | 'state'>): JobRecord {
  return {
    pid: 0,
    startTicks: '0',
    bootId: processes.bootId,
    hostId: env.jobs.hostId,
    endReason: '',
    exit: undefined,
    stdio: 'none',
    log: '',
    args: [],
    workingDirectory: '/',
    details: {},
    gpuEnabled: false,
    frozen: false,
    directory: '',
    createdAt: Date.now(),
    startedAt: 0,
    exitedAt: 0,
    ...parts,
  }
}

/** The id asked for, or a random one that is free. */
export function chooseJobId(env: Environment, wanted: string): string {
  if (wanted !== '') return checkJobId(wanted)
  for (;;) {
    const jid = randomJobId()
    if (!env.jobs.find(jid)) return jid
  }
}

/** A directory for one shim, private to the daemon, and empty: a job that is restored had one before. */
export async function makeJobDirectory(env: Environment, name: string): Promise<string> {
  await ensureDirectories(env)
  const directory = join(jobsDirectory(env), name)
  if (await processes.exists(directory)) await removeDirectory(directory)
  mkdirSync(directory, { mode: 0o700 })
  return directory
}

/** Only without a daemon are the caller's own streams within reach. */
export function checkStdio(env: Environment, stdio: StdioMode): void {
  if (stdio === 'inherit' && !env.foreground)
    throw new CedanaError('BAD_OPTIONS', 'a daemon cannot hand on the standard streams of its caller')
}

const STREAMS = ['standard input', 'standard output', 'standard error'] as const

/** Whoever is the parent of a foreign target opens the caller's streams by name, which of a socket cannot be done. */
export function streamProblems({ launcher, streams }: Pick<Program, 'launcher' | 'streams'>, asked: StdioMode): readonly Problem[] {
  if (launcher?.foreign !== true || (streams?.stdio ?? asked) !== 'inherit') return []
  const which = STREAMS.filter((_, fd) => fstatSync(fd).isSocket())
  if (which.length === 0) return []
  const message = `${which.join(' and ')} of this command ${which.length === 1 ? 'is a socket' : 'are sockets'}, which what runs the container cannot open`
  const hint = 'put pipes or files in their place (… | cat), or leave out --no-server and use --attach'
  return [{ severity: 'error', id: 'streams-are-sockets', message, hint }]
}

/** What nobody can do is not promised. */
export async function checkGpu(env: Environment, host: Host, isWanted: boolean): Promise<void> {
  if (isWanted) await (await env.gpu()).mustBeUsable(host)
}

/** The program's PID for scripts, written as the caller. A job is not given up for it: what went wrong becomes a message. */
export async function writePidFile(path: string, pid: number, caller: Caller): Promise<string[]> {
  if (path === '') return []
  return writeFileAs(caller, path, String(pid), 0o644).then(
    () => [],
    (thrown: unknown) => [`Failed to create PID file ${path}: ${CedanaError.from(thrown).message}`],
  )
}

export async function run(env: Environment, call: Call, request: RunRequest): Promise<Started> {
  const { op, host, signal } = begin(env, 'run', call)
  await using _ = op
  checkStdio(env, request.stdio)
  if (request.asRoot && call.caller.uid !== 0) throw new CedanaError('PERMISSION_DENIED', 'only root may use --as-root')

  await op.step('look for gpu', () => checkGpu(env, host, request.gpuEnabled))
  const jid = chooseJobId(env, request.jid)
  const directoryPath = join(jobsDirectory(env), jid)
  const plan: RunPlan = await op.step('plan', async () => {
    const runPlan = await env.runtimes.verb(request.type, 'run')
    const options = await env.runtimes.options(request.type, 'run', request.options)
    const caller = request.asRoot ? { ...call.caller, uid: 0, gid: 0, groups: [0] } : call.caller
    const { environment, workingDirectory, stdio, windowSize } = request
    return runPlan(host, { caller, environment, workingDirectory, jid, directory: directoryPath, stdio, windowSize }, options)
  })
  refuseProblems([...plan.problems, ...streamProblems(plan, request.stdio)])

  const log = request.stdio === 'inherit' ? '' : request.log !== '' ? request.log : request.stdio === 'log' ? defaultLog(jid) : ''
  // From its record on others may ask for it: nobody is to delete or restore what is only being started.
  await op.step('lock', () => env.locks.take(jid, 'run'), {
    always: (lock) => {
      lock[Symbol.dispose]()
    },
  })
  const job = await op.step(
    'record job',
    () => {
      const record = newJob(env, {
        jid,
        type: request.type,
        state: 'starting',
        owner: { uid: plan.user.uid, gid: plan.user.gid, groups: plan.user.groups },
        stdio: request.stdio,
        log,
        args: plan.argv,
        workingDirectory: plan.workingDirectory,
        details: plan.identity ?? request.options,
        gpuEnabled: request.gpuEnabled,
        directory: directoryPath,
      })
      env.jobs.create(record)
      return record
    },
    {
      onFailure: () => {
        env.jobs.remove(jid)
      },
    },
  )
  const directory = await op.step('make directory', () => makeJobDirectory(env, jid), { onFailure: removeDirectory })

  const started = await op.step(
    'start',
    () =>
      startProgram(env, {
        type: request.type,
        directory,
        program: plan,
        stdio: request.stdio,
        log,
        logAsUser: request.log !== '',
        windowSize: request.windowSize,
        waitAttach: request.waitAttach,
        signal,
      }),
    {
      onFailure: async (shim) => {
        const target = { pid: shim.pid, startTicks: shim.startTicks, bootId: processes.bootId } as Target
        await processes.killTree(target, SIGKILL)
        await processes.waitExit(target)
        const made = { type: request.type, identity: job.details }
        if (plan.pidFile === undefined) await removeTarget(env, { ...made, target, why: 'undone' })
        else await undoStart(env, made, directory)
        await shim.done
      },
    },
  )
  await op.step('record start', async () => {
    // What a launcher has started has arguments of its own.
    const args = plan.launcher && (await processes.briefs([started.pid])).get(started.pid)?.args
    const { pid, startTicks } = started
    const running = env.jobs.update(jid, { state: 'running', pid, startTicks, args: args ?? plan.argv, startedAt: Date.now() })
    env.jobs.watch(running)
  })
  const messages = await op.step('write pid file', async () => {
    const pid = request.pidFile === '' ? undefined : await toldPid(plan, started)
    return writePidFile(request.pidFile, pid ?? started.pid, call.caller)
  })
  env.log.info({ op: 'run', job: job.jid, pid: started.pid }, 'job started')
  return op.done({ jid, pid: started.pid, messages, steps: op.steps })
}

export type { ExitStatus }

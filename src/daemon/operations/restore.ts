/**
 * `restore`: the checkpoint is opened and read whole, everything that can be known to fail is said, then the shim starts CRIU, which builds the
 * tree as the shim's own child. Nothing is created before all that decides what CRIU does has been verified, and nothing of it runs before the last
 * byte of its memory has. A failure leaves no process behind.
 */
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Caller, Snapshot, StdioMode, Target } from '../../plugins/contract/job.js'
import type { ParsedOptions } from '../../plugins/contract/options.js'
import type { RestoreSwitches } from '../../plugins/contract/runtime.js'
import type { CriuOptions, Problem, RestorePlan } from '../../plugins/contract/plan.js'
import * as criu from '../host/criu.js'
import { files } from '../host/files.js'
import { removeDirectory } from '../host/mounts.js'
import * as processes from '../host/processes.js'
import { writeWhole } from '../host/write-whole.js'
import type { Manifest } from '../images/manifest.js'
import { externalInherits, liveFacts, restoreProblems } from '../images/preflight.js'
import { CheckpointReader, type OpenRequest } from '../images/reader.js'
import { decodeState, STATE } from '../images/state.js'
import type { JobRecord } from '../jobs/job.js'
import { targetOf } from '../jobs/table.js'
import { mayUseTree } from './authorize.js'
import { CRIU_RESTORE_LOG, CriuWork } from './criu-work.js'
import { baseOptions, mergeOptions, parseCriuOpts, stdioInherits } from './criu-options.js'
import { PENDING_STDIN, STDIN_SECTION } from './dump.js'
import { begin, ensureDirectories, type Environment, jobsDirectory, makerName, unpackingLimits, warnings } from './environment.js'
import { RestoredGpu } from './gpu.js'
import { type Checks, checking, programWork, restoreByCriu, restoreByProgram, type TreePlan } from './restore-tree.js'
import { checkStdio, chooseJobId, defaultLog, makeJobDirectory, newJob, streamProblems, writePidFile } from './run.js'
import { removeTarget, undoStart } from './starts.js'
import { namedJob } from './target.js'
import type { Call, RestoreRequest, RestoreResult } from './verbs.js'

const SIGKILL = 9
/** Processes that just died keep their PID until their parent looks: worth waiting for. */
const PID_FREE_MS = 5000

/** Where the streams go when the request does not say: to the log, unless the job has a terminal or nothing of ours. */
function chooseStdio(request: RestoreRequest, job: JobRecord | undefined, manifest: Manifest | undefined): StdioMode {
  const before = manifest?.stdio.mode ?? job?.stdio ?? 'none'
  // Who wants to attach to what had a terminal wants a terminal.
  if (request.stdio === 'pipe' && before === 'tty') return 'tty'
  if (request.stdio !== undefined) return request.stdio
  if (request.log !== '') return 'log'
  if (!job || before === 'none') return 'none'
  return before === 'tty' ? 'tty' : 'log'
}

/** The job to restore, which must not run. Throws NO_SUCH_JOB, PERMISSION_DENIED, JOB_RUNNING. */
async function endedJob(env: Environment, call: Call, jid: string): Promise<JobRecord> {
  const job = namedJob(env, call.caller, jid)
  if (job.state !== 'ended' && (await processes.isAlive(targetOf(job))))
    throw new CedanaError('JOB_RUNNING', `job ${job.jid} is already running`)
  return await env.jobs.ended(job.jid)
}

function checkpointPath(env: Environment, request: RestoreRequest, job: JobRecord | undefined): string {
  if (request.path !== '') return request.path
  if (!job) throw new CedanaError('BAD_OPTIONS', 'no path provided', { hint: 'name the checkpoint with --path' })
  const [latest] = env.checkpoints.ofJob(job.jid)
  if (latest) return latest.path
  throw new CedanaError('JOB_NOT_RUNNING', `job ${job.jid} has no saved checkpoint. pass in path to override`)
}

/** The saved look at the tree; of a checkpoint that CRIU made alone there is none. */
async function savedSnapshot(reader: CheckpointReader): Promise<Snapshot | undefined> {
  if (!reader.manifest) return undefined
  const bytes = (await reader.images.read([STATE])).get(STATE)
  return bytes && decodeState(bytes)
}

interface Planning {
  readonly manifest: Manifest | undefined
  readonly snapshot: Snapshot | undefined
  readonly stdio: StdioMode
  readonly runtime: RestorePlan
}

/** Flags win over what the checkpoint was made with. */
const restoreSwitches = (request: RestoreRequest, manifest: Manifest | undefined): RestoreSwitches => ({
  tcpEstablished: request.tcpEstablished ?? manifest?.criu.tcpEstablished ?? false,
  extUnixSockets: manifest?.criu.extUnixSockets ?? false,
  fileLocks: request.fileLocks ?? manifest?.criu.fileLocks ?? false,
  shellJob: request.shellJob ?? manifest?.criu.shellJob ?? false,
})

const CGROUPS_OF_RUNTIME: Problem = {
  severity: 'error',
  id: 'cgroups-of-runtime',
  message: 'the runtime makes the cgroups of its container itself: no mode of manage_cgroups can be chosen',
  hint: 'leave --manage-cgroups-mode out at the restore',
}

/** Pure. */
function planRestore(
  env: Environment,
  caller: Caller,
  request: RestoreRequest,
  { manifest, snapshot, stdio, runtime }: Planning,
): TreePlan {
  const switches = restoreSwitches(request, manifest)
  const chosen: CriuOptions = {
    shell_job: switches.shellJob,
    tcp_established: switches.tcpEstablished,
    tcp_close: request.tcpClose ?? manifest?.criu.tcpClose,
    ext_unix_sk: switches.extUnixSockets,
    file_locks: switches.fileLocks,
    link_remap: request.linkRemap ?? manifest?.criu.linkRemap,
    leave_stopped: request.leaveStopped,
    external: request.external.length > 0 ? [...request.external] : undefined,
  }
  const base = baseOptions(env.config.criu.manage_cgroups, env.config.criu.log_level, CRIU_RESTORE_LOG)
  const usual = snapshot && !runtime.program ? [...stdioInherits(snapshot, stdio), ...externalInherits(snapshot)] : []
  const said = parseCriuOpts(request.criuOpts, criu.criuOptionFields(), caller)
  return {
    criu: mergeOptions(base, chosen, runtime.criu, said),
    inherit: [...usual, ...runtime.inherit],
    problems: [...runtime.problems, ...(runtime.program && said['manage_cgroups_mode'] !== undefined ? [CGROUPS_OF_RUNTIME] : [])],
    program: runtime.program,
    setup: runtime.setup,
    root: runtime.root,
  }
}

export async function restore(env: Environment, call: Call, request: RestoreRequest): Promise<RestoreResult> {
  const { op, host, signal } = begin(env, 'restore', call, request.timeoutMs)
  await using _ = op

  const binary = await op.step('find criu', () => env.criu())
  const existing = request.jid === '' ? undefined : await op.step('find job', () => endedJob(env, call, request.jid))
  const path = checkpointPath(env, request, existing)
  await op.step('lock', () => env.locks.take(existing?.jid ?? path, 'restore'), {
    always: (lock) => {
      lock[Symbol.dispose]()
    },
  })

  const opening: OpenRequest = {
    caller: call.caller,
    path,
    ...unpackingLimits(env),
    signal,
    direct: !request.dryRun,
    onProgress: (bytes, what) => {
      op.progress({ phase: what === 'images' ? 'open checkpoint' : 'criu restore', bytes, totalBytes: 0, frozen: false })
    },
  }
  const reader = await op.step(
    'open checkpoint',
    async () => {
      await ensureDirectories(env)
      return CheckpointReader.open(files, opening)
    },
    { always: (opened) => opened.close() },
  )
  const { manifest } = reader
  const stdio = chooseStdio(request, existing, manifest)
  checkStdio(env, stdio)
  const snapshot = await op.step('read state', () => savedSnapshot(reader))
  mayRestore(env, call, reader, snapshot)
  const type = runtimeType(env, request, manifest, existing)

  const jid = existing?.jid ?? (stdio === 'none' ? '' : chooseJobId(env, ''))
  const directoryName = jid || `.restore-${makerName(await env.self())}-${randomBytes(6).toString('hex')}`
  const gpu = await op.step('look for gpu', () => RestoredGpu.match(env, host, manifest, request))
  const planning = await op.step('ask runtime', async () => {
    const planRuntime = await env.runtimes.verb(type, 'restore')
    const options = await env.runtimes.options(type, 'restore', request.options)
    const context = {
      snapshot: snapshot ?? emptySnapshot,
      mountNamespace: (await env.facts()).namespaces.mnt,
      stdio: { then: manifest?.stdio.mode ?? 'none', now: stdio },
      log: manifest?.stdio.log,
      caller: call.caller,
      jid,
      directory: join(jobsDirectory(env), directoryName),
      images: reader.imagesPath,
      work: programWork(join(jobsDirectory(env), directoryName)),
      identity: manifest ? (manifest.type === type ? manifest.details : {}) : (existing?.details ?? {}),
      switches: restoreSwitches(request, manifest),
      attachment: async (name: string) => (await reader.images.read([name])).get(name),
    }
    const runtime = await planRuntime(host, context, options)
    return { manifest, snapshot, stdio, runtime }
  })
  const known = [...(gpu?.problems ?? []), ...(planning.runtime.program ? streamProblems(planning.runtime.program, stdio) : [])]
  const plan = await op.step('plan', () => withProblems(planRestore(env, call.caller, request, planning), known))
  // Who cannot be told when the tree is there finds all of it in CRIU's images.
  if (plan.program && !plan.setup) await op.step('unpack pages', () => reader.withoutDirect(opening))
  const check = (): Checks => checking(reader, lookAhead(env, { reader, snapshot, plan, criuVersion: binary.version }))
  const state = request.withState ? snapshot : undefined
  if (request.dryRun) {
    const checks = check()
    const problems = await op.step('preflight', () => checks.problems)
    await op.step('verify', () => checks.verified)
    return op.done({
      jid: '',
      pid: 0,
      messages: [],
      steps: op.steps,
      problems,
      state,
      plan: { ...plan.criu, inherit: plan.inherit },
      criuStatistics: {},
    })
  }

  const identity = plan.program?.identity
  const job = await op.step(
    'record job',
    () => recordRestoring(env, call, request, { existing, jid, type, stdio, snapshot, manifest, identity, gpu }),
    {
      onFailure: (made) => {
        if (existing) env.jobs.update(existing.jid, existing)
        else if (made) env.jobs.remove(made.jid)
      },
    },
  )
  const directory = await op.step('make directory', () => makeJobDirectory(env, directoryName), {
    onFailure: removeDirectory,
  })
  const work = await op.step('open work directory', () => CriuWork.open(env, 'restore', CRIU_RESTORE_LOG), {
    always: (opened) => opened.close(),
  })
  const pending = await op.step('read input', () => pendingInput(reader, directory))
  if (gpu) await op.step('note gpu', () => gpu.note(existing?.jid ?? path, directory), { always: (forget) => forget() })

  const bringUp = plan.program ? restoreByProgram : restoreByCriu
  const started = await op.step(
    'criu restore',
    () => bringUp(env, { type, call, request, signal, binary, plan, reader, check, directory, work, pending, job, stdio }),
    {
      category: 'criu',
      onFailure: async ({ pid, startTicks, launched }) => {
        const target = { pid, startTicks, bootId: processes.bootId } as Target
        // What it built on is not to go with what came of it.
        if (job) env.jobs.expectEnd(job.jid, 'dumped')
        await processes.killTree(target, SIGKILL)
        // The runtime removes nothing of one that lives.
        await processes.waitExit(target)
        const shim = await launched.catch(() => undefined)
        const made = { type, identity: identity ?? {} }
        if (plan.program?.pidFile !== undefined) await undoStart(env, made, directory)
        else if (plan.program) await removeTarget(env, { ...made, target, why: 'undone' })
        await shim?.done
        if (!job) return
        await env.jobs.ended(job.jid)
        env.jobs.expectEnd(job.jid, undefined)
      },
    },
  )
  if (gpu) {
    const copy = async (): Promise<void> => op.moved(await gpu.copyToDevices(started.targetPid))
    await op.step('copy to gpu', copy, { category: 'gpu' })
  }
  await op.step('record start', () => {
    if (job) {
      const running = {
        state: 'running',
        pid: started.pid,
        startTicks: started.startTicks,
        bootId: processes.bootId,
        hostId: env.jobs.hostId,
        startedAt: Date.now(),
      } as const
      env.jobs.watch(env.jobs.update(job.jid, running))
    } else {
      // No job, no trace: the directory goes with the shim.
      void started.launched
        .then(async (shim) => {
          await shim.done
          if (plan.program)
            await removeTarget(env, {
              type,
              target: { pid: started.pid, startTicks: started.startTicks, bootId: processes.bootId } as Target,
              identity: identity ?? {},
              why: 'ended',
            })
          await removeDirectory(directory)
        })
        .catch(() => undefined)
    }
  })
  const { problems } = started
  const messages = [
    ...warnings(problems),
    ...(await op.step('write pid file', () => writePidFile(request.pidFile, started.targetPid, call.caller))),
  ]
  env.log.info({ op: 'restore', job: job?.jid, pid: started.pid, path, directBytes: reader.directBytes }, 'restored')
  return op.done({
    jid: job?.jid ?? '',
    pid: started.pid,
    messages,
    steps: op.steps,
    problems,
    state,
    plan: undefined,
    criuStatistics: work.statistics('restore'),
  })
}

const withProblems = (plan: TreePlan, problems: readonly Problem[]): TreePlan => ({ ...plan, problems: [...plan.problems, ...problems] })

interface Ahead {
  readonly reader: CheckpointReader
  readonly snapshot: Snapshot | undefined
  readonly plan: TreePlan
  readonly criuVersion: number
}

async function lookAhead(env: Environment, { reader, snapshot, plan, criuVersion }: Ahead): Promise<readonly Problem[]> {
  const known = [...reader.problems, ...plan.problems]
  const { manifest } = reader
  if (!manifest || !snapshot) return known
  await waitForPids(snapshot, manifest)
  const live = await liveFacts(snapshot, criuVersion, await env.facts(), reader.images)
  return [...known, ...restoreProblems(manifest, snapshot, live, new Set(plan.inherit.map(({ key }) => key)))]
}

const emptySnapshot: Snapshot = {
  target: { pid: 0, startTicks: '0', bootId: '' } as unknown as Target,
  processes: [],
  sockets: [],
  mounts: [],
}

/**
 * CRIU restores processes with whatever user ids the images say. Who is not root may therefore only have restored what this daemon recorded when
 * it was made, unchanged, and what was theirs then.
 */
function mayRestore(env: Environment, call: Call, reader: CheckpointReader, snapshot: Snapshot | undefined): void {
  if (call.caller.uid === 0) return
  const isOurs = env.checkpoints
    .ofJob(undefined)
    .some((record) => record.manifestDigest !== '' && record.manifestDigest === reader.manifestDigest)
  if (!isOurs || !snapshot) {
    throw new CedanaError('PERMISSION_DENIED', `the checkpoint ${reader.path} was not made by this daemon`, {
      hint: 'only root may restore it',
    })
  }
  mayUseTree(call.caller, snapshot.processes)
}

function runtimeType(env: Environment, request: RestoreRequest, manifest: Manifest | undefined, job: JobRecord | undefined): string {
  const type = job?.type || request.type || manifest?.type || ''
  if (type === '')
    throw new CedanaError('BAD_OPTIONS', 'missing type', { hint: 'the checkpoint does not say of which type it is: use restore process' })
  // What its own runtime cannot restore another may, as whatever it makes of it.
  if (manifest && manifest.type !== type && env.runtimes.supports(manifest.type, 'restore')) {
    throw new CedanaError('BAD_OPTIONS', `the checkpoint is of type ${manifest.type}, not ${type}`, {
      hint: `use: cedana restore ${manifest.type}`,
    })
  }
  return type
}

/**
 * Of the tree that was dumped, what is still about to end: with a dump that ended it, its own processes; and zombies that nobody has reaped, which
 * keep the numbers of their process, group and session.
 */
async function waitForPids(snapshot: Snapshot, manifest: Manifest): Promise<void> {
  const needed = new Map<number, string>(snapshot.processes.map((facts) => [facts.pid, facts.startTicks]))
  const ending = (await processes.allProcesses()).filter(({ pid, processGroup, session, startTicks, state }) =>
    state === 'Z' || state === 'X'
      ? needed.has(pid) || needed.has(processGroup) || needed.has(session)
      : !manifest.leaveRunning && needed.get(pid) === startTicks,
  )
  await Promise.all(ending.map(({ pid, startTicks }) => processes.waitReaped(pid, startTicks, PID_FREE_MS)))
}

interface RestoringJob {
  readonly existing: JobRecord | undefined
  /** Empty: no job. */
  readonly jid: string
  readonly type: string
  readonly stdio: StdioMode
  readonly snapshot: Snapshot | undefined
  readonly manifest: Manifest | undefined
  /** What names the target from now on; undefined: as before. */
  readonly identity: ParsedOptions | undefined
  readonly gpu: RestoredGpu | undefined
}

/** The job goes on as it was; a bare checkpoint becomes a job when somebody is to attach to it or it runs in the foreground. */
function recordRestoring(env: Environment, call: Call, request: RestoreRequest, made: RestoringJob): JobRecord | undefined {
  const { existing, jid, stdio, snapshot, manifest } = made
  if (jid === '') return undefined
  const formerLog = existing !== undefined && existing.log !== '' ? existing.log : defaultLog(jid)
  const log = stdio === 'inherit' ? '' : request.log !== '' ? request.log : stdio === 'log' ? formerLog : ''
  const directory = join(jobsDirectory(env), jid)
  const details = made.identity ?? existing?.details ?? manifest?.details ?? {}
  const changes = {
    state: 'restoring',
    stdio,
    log,
    directory,
    details,
    endReason: '',
    exit: undefined,
    exitedAt: 0,
    frozen: false,
    ...(made.gpu ? { gpuEnabled: true } : {}),
  } as const
  if (existing) return env.jobs.update(existing.jid, changes)
  const [root] = snapshot?.processes ?? []
  const job = newJob(env, {
    jid,
    type: made.type,
    owner: { uid: root?.uids[0] ?? call.caller.uid, gid: root?.gids[0] ?? call.caller.gid, groups: root?.groups ?? call.caller.groups },
    args: root?.args ?? [],
    workingDirectory: root?.workingDirectory ?? '/',
    ...changes,
  })
  env.jobs.create(job)
  return job
}

/** Input that was on its way to the job when it was dumped. */
async function pendingInput(
  reader: CheckpointReader,
  directory: string,
): Promise<{ readonly file: string; readonly ended: boolean } | undefined> {
  const section = reader.manifest?.sections.find((one) => one.name === STDIN_SECTION)
  const bytes = section && (await reader.images.read([PENDING_STDIN])).get(PENDING_STDIN)
  if (!bytes) return undefined
  const file = join(directory, PENDING_STDIN)
  await writeWhole(file, bytes)
  return { file, ended: (section.data as { readonly ended?: boolean }).ended === true }
}

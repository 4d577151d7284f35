/**
 * `dump`: the tree is looked at, everything that can be known to fail is said, CRIU writes while the tree is frozen, the checkpoint is sealed,
 * and only then is the tree let go: it dies, or runs on. A failure at any point leaves it running and nothing behind but CRIU's log.
 */
import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Caller, Snapshot, StdioMode } from '../../plugins/contract/job.js'
import type { CriuOptions, DumpPlan, Problem } from '../../plugins/contract/plan.js'
import { criuOptionFields, DumpWorker } from '../host/criu.js'
import { files } from '../host/files.js'
import { openPageServer } from '../host/pages.js'
import type { HostFacts } from '../host/probe.js'
import * as processes from '../host/processes.js'
import { type PendingStdin, ShimConnection } from '../host/shim.js'
import { defaultName, parseCompression, parseKeepLast, parseLevel, parseStreams, unixNanoseconds } from '../images/layout.js'
import type { ManifestInput } from '../images/manifest.js'
import { FILES, forgetOutsideSizes } from '../images/outside-files.js'
import { dumpProblems, dumpSize, dumpSwitches } from '../images/preflight.js'
import { encodeState, STATE } from '../images/state.js'
import { removeStale } from '../images/stale.js'
import { CheckpointWriter, CRIU_DUMP_LOG, type SealedCheckpoint } from '../images/writer.js'
import type { CheckpointRecord } from '../jobs/job.js'
import { mayUseTree } from './authorize.js'
import { baseOptions, externalTerminal, mergeOptions, parseCriuOpts } from './criu-options.js'
import { keepLast, removeFiles } from './checkpoints.js'
import { CriuWork } from './criu-work.js'
import { begin, type Environment, packingLimits, refuseProblems, warnings } from './environment.js'
import { DumpedGpu } from './gpu.js'
import { endsWithin } from './jobs.js'
import type { Operation } from './operation.js'
import { noteStop } from './standstill.js'
import { findTarget, type FoundTarget } from './target.js'
import type { Call, DumpRequest, DumpResult } from './verbs.js'

/** File with the input that a job had not read when it was frozen; the section says whether its input ended there. */
export const PENDING_STDIN = 'stdin.pending'
export const STDIN_SECTION = 'stdin'

/** How long a job may take to be gone once CRIU has ended it. */
const END_MS = 10_000
const PROGRESS_MS = 250
/** The first CRIU that can be told so. */
const LOCK_SKIPPED_SINCE = 31800

interface Plan {
  readonly criu: CriuOptions
  readonly runtime: DumpPlan
  readonly problems: readonly Problem[]
  readonly leaveRunning: boolean
}

interface Planning {
  readonly snapshot: Snapshot
  readonly stdio: StdioMode
  readonly facts: HostFacts
  readonly runtime: DumpPlan
  readonly gpu: DumpedGpu | undefined
  readonly criuVersion: number
}

/** Pure: the same look at the tree and the same request give the same plan. */
function planDump(
  env: Environment,
  caller: Caller,
  request: DumpRequest,
  { snapshot, stdio, facts, runtime, gpu, criuVersion }: Planning,
): Plan {
  const given = {
    tcpEstablished: request.tcpEstablished,
    shellJob: request.shellJob,
    fileLocks: request.fileLocks,
    linkRemap: request.linkRemap,
  }
  const switches = dumpSwitches(snapshot, { stdio, given })
  const chosen: CriuOptions = {
    pid: snapshot.target.pid,
    leave_running: request.leaveRunning ?? env.config.criu.leave_running,
    shell_job: switches.shellJob,
    tcp_established: switches.tcpEstablished,
    ext_unix_sk: switches.extUnixSockets,
    file_locks: switches.fileLocks,
    link_remap: switches.linkRemap,
    tcp_skip_in_flight: request.skipInFlight,
    // Else CRIU shuts a network namespace for as long as it takes, and opens it again, by a dozen programs; whoever shares it waits too.
    network_lock: switches.hasTcp || criuVersion < LOCK_SKIPPED_SINCE ? undefined : 'SKIP',
    external: [...switches.external, ...request.external],
  }
  const base = baseOptions(env.config.criu.manage_cgroups, env.config.criu.log_level, CRIU_DUMP_LOG)
  const criuOpts = parseCriuOpts(request.criuOpts, criuOptionFields(), caller)
  // A terminal that is made anew with its container is the runtime's business.
  const terminal = runtime.criu['orphan_pts_master'] === true ? {} : externalTerminal(snapshot, stdio)
  const options = mergeOptions(base, chosen, terminal, runtime.criu, criuOpts)
  return {
    criu: options,
    runtime,
    // Processes that are left out have none.
    problems:
      runtime.save === 'only'
        ? runtime.problems
        : [
            ...dumpProblems(snapshot, facts, { ...switches, external: [...switches.external, ...request.external] }),
            ...runtime.problems,
            ...(gpu?.problems ?? []),
          ],
    leaveRunning: options['leave_running'] === true,
  }
}

function manifestInput(
  env: Environment,
  found: FoundTarget,
  plan: Plan,
  planning: Planning,
  made: { criuVersion: number; input: PendingStdin | undefined },
): ManifestInput {
  const { criu: options } = plan
  const job = found.job
  return {
    cedana: env.version,
    createdAt: new Date().toISOString(),
    type: found.type,
    jid: job?.jid ?? '',
    target: planning.snapshot.target,
    stdio: { mode: planning.stdio, ...(job !== undefined && job.log !== '' ? { log: job.log } : {}) },
    host: {
      id: env.jobs.hostId,
      name: hostname(),
      kernel: planning.facts.kernel,
      arch: planning.facts.arch,
      cpu: { ...planning.facts.cpu, flags: [...planning.facts.cpu.flags] },
    },
    criuVersion: made.criuVersion,
    leaveRunning: plan.leaveRunning,
    criu: {
      tcpEstablished: options['tcp_established'] === true,
      ...(options['tcp_close'] === true && { tcpClose: true }),
      shellJob: options['shell_job'] === true,
      fileLocks: options['file_locks'] === true,
      linkRemap: options['link_remap'] === true,
      extUnixSockets: options['ext_unix_sk'] === true,
      external: (options['external'] as string[] | undefined) ?? [],
    },
    details: found.identity,
    sections: [
      ...(made.input ? [{ name: STDIN_SECTION, version: 1, data: { ended: made.input.ended } }] : []),
      ...(planning.gpu ? [planning.gpu.section] : []),
    ],
  }
}

/** What the job has not read of its input, as long as it stands still. */
async function pendingStdin(found: FoundTarget): Promise<PendingStdin | undefined> {
  if (found.job?.stdio !== 'pipe') return undefined
  const connection = await ShimConnection.open(found.job.directory)
  try {
    return await connection.pendingStdin()
  } finally {
    connection.close()
  }
}

export async function dump(env: Environment, call: Call, request: DumpRequest): Promise<DumpResult> {
  const { op, host, signal } = begin(env, 'dump', call, request.timeoutMs)
  await using _ = op

  const compression = parseCompression(request.compression || env.config.checkpoint.compression)
  const level = parseLevel(compression, request.level, env.config.checkpoint.level)
  const streams = parseStreams(request.streams, env.config.checkpoint.streams)
  const { memoryBytes, threads } = packingLimits(env)
  const keep = parseKeepLast(request.keepLast, env.config.checkpoint.keep_last)
  const binary = await op.step('find criu', () => env.criu())
  const found = await op.step('find target', () => findTarget(env, call, host, request))
  await op.step('lock', () => env.locks.take(found.lock, 'dump'), {
    always: (lock) => {
      lock[Symbol.dispose]()
    },
  })
  const worker = await op.step('start criu', () => DumpWorker.start(binary, env.searchPath), {
    category: 'criu',
    always: (started) => started.close(),
  })
  const snapshot = await op.step('inspect', () => processes.inspect(found.target))
  mayUseTree(call.caller, snapshot.processes)

  const stdio = found.job?.stdio ?? 'none'
  const gpu = await op.step('look for gpu', () => DumpedGpu.find(env, host, snapshot, found.job))
  const planning = await op.step('ask runtime', async () => {
    const planRuntime = await env.runtimes.verb(found.type, 'dump')
    const options = await env.runtimes.options(found.type, 'dump', request.options)
    const facts = await env.facts()
    const { mnt: mountNamespace, user: userNamespace, cgroup: cgroupNamespace } = facts.namespaces
    const context = { snapshot, mountNamespace, userNamespace, cgroupNamespace, stdio, identity: found.identity }
    const runtime = await planRuntime(host, context, options)
    return { snapshot, stdio, facts, runtime, gpu, criuVersion: binary.version }
  })
  const plan = await op.step('plan', () => planDump(env, call.caller, request, planning))
  const state = request.withState ? snapshot : undefined
  if (request.dryRun) return op.done({ ...emptyResult, steps: op.steps, problems: plan.problems, plan: plan.criu, state })
  refuseProblems(plan.problems)

  const directory = request.dir || env.config.checkpoint.dir
  const name = request.name || defaultName(found.type, found.job?.jid, unixNanoseconds())
  const total = plan.runtime.save === 'only' ? 0 : dumpSize(snapshot) + (gpu?.deviceBytes ?? 0)
  const work = await op.step('open work directory', () => CriuWork.open(env, 'dump', CRIU_DUMP_LOG), { always: (opened) => opened.close() })
  const writer = await op.step(
    'open checkpoint',
    async () =>
      CheckpointWriter.create(files, {
        caller: call.caller,
        maker: await env.self(),
        directory,
        name,
        compression,
        level,
        threads,
        streams,
        memoryBytes,
        background: plan.leaveRunning,
        estimateBytes: total,
      }),
    { onFailure: (made) => made.abort() },
  )
  await op.step('write state', async () => {
    if (plan.runtime.save !== 'only') await writer.add(STATE, encodeState(snapshot))
    for (const attachment of plan.runtime.attachments) await writer.add(attachment.name, attachment.content)
  })

  const directoryPath = `/proc/${process.pid}/fd/${writer.stagingFd}`
  const save = async (isStopped: boolean): Promise<() => Promise<void>> => {
    const saveMore = await env.runtimes.verb(found.type, 'save')
    const options = await env.runtimes.options(found.type, 'dump', request.options)
    return saveMore(host, { identity: found.identity, directory: directoryPath, isStopped }, options)
  }
  const freezer = plan.criu['freeze_cgroup'] as string | undefined
  const by = plan.runtime.save === 'only' ? 'runtime' : 'criu'
  if (freezer !== undefined) await op.step('note stop', () => noteStop(env, found, { freezer, by }), { always: (end) => end() })
  if (plan.runtime.save === 'only') {
    await op.step('save', () => save(false), { onFailure: (undo) => undo() })
    const sealed = await op.step(
      'seal',
      () => writer.seal(manifestInput(env, found, plan, planning, { criuVersion: binary.version, input: undefined })),
      {
        onFailure: (made) => removeFiles(call.caller, made.path),
      },
    )
    const record = checkpointRecord(found, sealed, compression)
    await op.step('record checkpoint', () => env.checkpoints.insert(record), { onFailure: () => env.checkpoints.remove(record.id) })
    env.log.info({ op: 'dump', job: found.job?.jid, path: sealed.path, bytes: sealed.size }, 'files dumped')
    return op.done({
      ...emptyResult,
      checkpointId: record.id,
      paths: [sealed.path],
      size: sealed.size,
      steps: op.steps,
      problems: plan.problems,
      state: undefined,
      plan: undefined,
    })
  }

  // What fits into memory never waits for the disk, which has its part from the start all the same.
  const fits = plan.leaveRunning && total <= memoryBytes
  const pages = await op.step(
    'open page server',
    () =>
      openPageServer({
        socketFd: worker.takePages(),
        directoryFd: writer.stagingFd,
        criuVersion: binary.version,
        packer: writer.packer,
        memoryBytes,
        dropZeroPages: true,
        rootPid: found.target.pid,
      }),
    { onFailure: (server) => server.abort() },
  )
  let isFrozen = !fits
  const prepared = plan.leaveRunning ? pages.prepare(total) : undefined
  // Beside CRIU's start, but not beside its dump: the target would stand still for that long. With the disk in its way it would in any case.
  const ready = fits ? prepared?.then(() => void (isFrozen = true)) : undefined
  const onStopped = fits ? (): void => pages.readAhead() : undefined
  // What is being packed or written ends at once when the caller goes away, not when it is done.
  const breakOff = (): void => {
    void writer.packer?.abort()
    void pages.abort().catch(() => undefined)
  }
  signal.addEventListener('abort', breakOff, { once: true })
  if (gpu) {
    await op.step('note gpu', () => gpu.note(found.lock), { always: () => gpu.end() })
    await op.step('lock gpu', () => gpu.lock(), { category: 'gpu' })
    const copy = (): Promise<void> => {
      op.progress({ phase: 'copy from gpu', bytes: 0, totalBytes: gpu.deviceBytes, frozen: true })
      op.moved(gpu.deviceBytes)
      return gpu.copyToHost(found.target)
    }
    await op.step('copy from gpu', copy, { category: 'gpu' })
  }
  // Once the tree may be dead the checkpoint is all there is of it, and stays whatever fails.
  let released = false
  const watched = async <T>(phase: string, bytes: () => number, work: () => Promise<T>): Promise<T> => {
    const ticker = setInterval(() => op.progress({ phase, bytes: bytes(), totalBytes: total, frozen: isFrozen }), PROGRESS_MS)
    return work().finally(() => clearInterval(ticker))
  }
  const received = (): number => pages.progress().receivedBytes
  const stored = (): number => writer.packer?.progress().packedBytes ?? pages.progress().writtenBytes
  const frozen = await op.step(
    'criu dump',
    () =>
      watched('criu dump', received, async () => {
        const options = { ...plan.criu, images_dir_fd: writer.stagingFd, work_dir_fd: work.fd }
        const dumped = await worker.dump(options, signal, { isReady: ready, onStopped }).catch(async (thrown: unknown) => {
          throw await work.explain(thrown, await pages.failure())
        })
        op.moved(received())
        return dumped
      }),
    { category: 'criu', onFailure: (dumped) => dumped.rollback() },
  )

  if (plan.runtime.save === 'also') await op.step('save', () => save(true), { onFailure: (undo) => (released ? undefined : undo()) })
  const complete = (): Promise<void> =>
    frozen.complete().catch(async (thrown: unknown) => {
      throw await work.explain(thrown)
    })
  const input = await op.step('save input', async () => {
    const pending = await pendingStdin(found)
    if (pending) await writer.add(PENDING_STDIN, pending.bytes)
    const external = (plan.criu['external'] as readonly string[] | undefined) ?? []
    if (external.some((key) => key.startsWith('file['))) await writer.rewrite(FILES, forgetOutsideSizes)
    return pending
  })
  // The images are complete: a tree that is to run on does not wait for the disk, nor the disk for CRIU's end.
  const resumed = plan.leaveRunning ? complete().then(() => void (isFrozen = false)) : undefined
  resumed?.catch(() => undefined)
  const lost = resumed && gpu ? await runOnWithGpu(op, gpu, resumed) : undefined
  const flushed = pages.finish()
  flushed.catch(() => undefined)
  await op.step('save log', async () => writer.add(CRIU_DUMP_LOG, await work.log()))
  const written = await op.step('flush pages', () => watched('flush pages', stored, () => flushed))
  const sealed = await op.step(
    'seal',
    () => {
      const manifest = manifestInput(env, found, plan, planning, { criuVersion: binary.version, input })
      return watched('seal', stored, () => writer.seal(manifest, written.files))
    },
    { onFailure: (made) => (released ? undefined : removeFiles(call.caller, made.path)) },
  )
  if (resumed && !gpu) await op.step('resume', () => resumed, { category: 'criu' })
  const record = checkpointRecord(found, sealed, compression)
  await op.step(
    'record checkpoint',
    () => {
      env.checkpoints.insert(record)
    },
    {
      onFailure: () => {
        if (!released) env.checkpoints.remove(record.id)
      },
    },
  )
  if (lost) {
    // The checkpoint is all there is of it.
    released = true
    throw new CedanaError(lost.code, `the checkpoint ${sealed.path} is complete, but ${lost.message}`, {
      cause: lost,
      hint: 'end the job and restore it',
    })
  }
  const messages = warnings(plan.problems)
  const spilled = writer.packer?.progress().spilledBytes ?? 0
  if (spilled > 0) messages.push(spilledMessage(spilled, env.config.checkpoint.memory_limit_mb))
  if (!plan.leaveRunning) {
    const letGo = (): Promise<void> => {
      released = true
      if (found.job) env.jobs.expectEnd(found.job.jid, 'dumped')
      return complete().catch((thrown: unknown) => afterSeal(env, found, sealed.path, thrown))
    }
    await op.step('let go', letGo, { category: 'criu' })
    if (found.job && !(await op.step('wait for end', () => endsWithin(env, found.job?.jid ?? '', END_MS), { uncancellable: true }))) {
      messages.push(`Job ${found.job.jid} has not ended yet`)
    }
  }
  if (found.job && keep > 0) {
    const { jid } = found.job
    messages.push(...(await op.step('remove old checkpoints', () => keepLast(env, call.caller, jid, keep), { uncancellable: true })))
  }
  env.log.info({ op: 'dump', job: found.job?.jid, pid: found.target.pid, path: sealed.path, bytes: sealed.size }, 'dumped')
  const criuStatistics = work.statistics('dump')
  return op.done({
    checkpointId: record.id,
    paths: [sealed.path],
    size: sealed.size,
    messages,
    steps: op.steps,
    problems: plan.problems,
    state,
    plan: undefined,
    // How long the tree stood still.
    frozenUs: criuStatistics['frozen_time'] ?? 0,
    criuStatistics,
  })
}

/** A tree that waits for its GPUs waits for nothing else. Answers why it could not have them back. */
async function runOnWithGpu(op: Operation, gpu: DumpedGpu, resumed: Promise<void>): Promise<CedanaError | undefined> {
  await op.step('resume', () => resumed, { category: 'criu' })
  const copy = (): Promise<CedanaError | undefined> => {
    op.moved(gpu.deviceBytes)
    return gpu.release().then(
      () => undefined,
      (thrown: unknown) => CedanaError.from(thrown),
    )
  }
  return op.step('copy to gpu', copy, { category: 'gpu' })
}

const checkpointRecord = (found: FoundTarget, { path, size, manifestDigest }: SealedCheckpoint, compression: string): CheckpointRecord => ({
  id: randomUUID(),
  jid: found.job?.jid ?? '',
  type: found.type,
  path,
  time: Date.now(),
  size,
  compression,
  manifestDigest,
})

const spilledMessage = (bytes: number, limitMb: number): string =>
  `Note: ${Math.ceil(bytes / 2 ** 20)} MiB waited on disk to be packed, beyond the ${limitMb} MiB of checkpoint.memory_limit_mb`

const emptyResult = { checkpointId: '', paths: [], size: 0, messages: [], frozenUs: 0, criuStatistics: {} } as const

/** CRIU failed after the checkpoint was sealed. It stays: when the tree is gone the dump has succeeded after all. */
async function afterSeal(env: Environment, found: FoundTarget, path: string, thrown: unknown): Promise<void> {
  const gone = await processes.waitGone(found.target, 1000)
  env.log.warn(
    { pid: found.target.pid, path, gone, err: CedanaError.from(thrown).message },
    'criu failed after the checkpoint was complete',
  )
  if (gone) return
  if (found.job) env.jobs.expectEnd(found.job.jid, undefined)
  throw new CedanaError(
    'CRIU_DUMP_FAILED',
    `the checkpoint ${path} is complete, but criu failed to end process ${found.target.pid}, which runs on`,
    {
      cause: thrown,
      hint: 'end it with `cedana kill`, or remove the checkpoint',
    },
  )
}

/** What killed dumps have left in the directories that checkpoints were last made in. */
export async function removeUnfinished(env: Environment): Promise<void> {
  const directories = new Set([env.config.checkpoint.dir, ...env.checkpoints.ofJob(undefined).map((record) => join(record.path, '..'))])
  const isAlive = async (pid: number, startTicks: string): Promise<boolean> =>
    (await processes.briefs([pid])).get(pid)?.startTicks === startTicks
  for (const directory of directories) {
    const removed = await removeStale(directory, { bootId: processes.bootId, isAlive }).catch(() => [])
    if (removed.length > 0) env.log.warn({ directory, removed }, 'removed what an interrupted dump had left')
  }
}

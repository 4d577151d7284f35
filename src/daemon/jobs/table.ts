/** The jobs of this daemon: what the database holds, and who waits for which end. The database is written before anybody is told. */
import { rmSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Log } from '../../plugins/contract/host.js'
import type { ExitStatus, Target } from '../../plugins/contract/job.js'
import * as processes from '../host/processes.js'
import { readShimExit, readShimState, ShimConnection } from '../host/shim.js'
import type { EndReason, JobBrief, JobRecord } from './job.js'

/** The part of db/jobs.ts that the table uses. */
export interface JobStore {
  insert(record: JobRecord): void
  update(record: JobRecord): void
  remove(jid: string): void
  get(jid: string): JobRecord | undefined
  ofPid(pid: number): readonly JobRecord[]
  all(): readonly JobRecord[]
  briefs(): readonly JobBrief[]
}

export interface JobEnd {
  exitOf(job: JobRecord): Promise<ExitStatus | undefined>
  removeRemains(job: JobRecord, reason: EndReason, exit: ExitStatus | undefined): Promise<void>
}

export const targetOf = (job: JobRecord): Target => ({ pid: job.pid, startTicks: job.startTicks, bootId: job.bootId }) as Target

/** How long a shim may take to write down an exit that the kernel has already told us of. */
const SHIM_EXIT_MS = 5000

export class JobTable {
  /** Jobs whose end is watched, and the promise of that end. */
  readonly #ends = new Map<string, Promise<void>>()
  /** Why a job that is about to end, ends. */
  readonly #reasons = new Map<string, EndReason>()
  #closed = false

  constructor(
    readonly store: JobStore,
    readonly hostId: string,
    readonly log: Log,
    /**
     * What is to be done between the end of a job and the moment that anybody hears of it. Asked for an exit status that nobody else knows, it may.
     */
    private readonly atEnd: JobEnd = { exitOf: async () => undefined, removeRemains: async () => undefined },
  ) {}

  /** Throws JOB_EXISTS. */
  mustBeFree(jid: string): void {
    if (this.store.get(jid))
      throw new CedanaError('JOB_EXISTS', `job ${jid} already exists`, { hint: 'choose another --jid, or delete the job' })
  }

  create(record: JobRecord): void {
    this.mustBeFree(record.jid)
    this.store.insert(record)
  }

  get(jid: string): JobRecord {
    const record = this.store.get(jid)
    if (!record) throw new CedanaError('NO_SUCH_JOB', `job ${jid} not found`)
    return record
  }

  find(jid: string): JobRecord | undefined {
    return this.store.get(jid)
  }

  all(): readonly JobRecord[] {
    return this.store.all()
  }

  briefs(): readonly JobBrief[] {
    return this.store.briefs()
  }

  update(jid: string, changes: Partial<JobRecord>): JobRecord {
    const record = { ...this.get(jid), ...changes }
    this.store.update(record)
    return record
  }

  remove(jid: string): void {
    this.store.remove(jid)
  }

  /** The running job that has this root process. */
  byTarget(target: Target): JobRecord | undefined {
    return this.store
      .ofPid(target.pid)
      .find((job) => job.state !== 'ended' && job.startTicks === target.startTicks && job.bootId === target.bootId)
  }

  /** Says beforehand why a job will end: `dumped` when CRIU is about to end it, `killed` when a signal was asked for. */
  expectEnd(jid: string, reason: EndReason | undefined): void {
    if (reason === undefined) this.#reasons.delete(jid)
    else this.#reasons.set(jid, reason)
  }

  /** Starts to watch a running job; from then on its end is recorded by itself. */
  watch(job: JobRecord): void {
    if (this.#ends.has(job.jid)) return
    const end = this.#awaitEnd(job).catch((thrown: unknown) => {
      this.log.warn({ job: job.jid, err: CedanaError.from(thrown).message }, 'watching a job failed')
    })
    this.#ends.set(
      job.jid,
      end.finally(() => this.#ends.delete(job.jid)),
    )
  }

  /** Resolves when the job has ended and its end is in the database. At once when it is not running. */
  async ended(jid: string): Promise<JobRecord> {
    await this.#ends.get(jid)
    return this.get(jid)
  }

  close(): void {
    this.#closed = true
  }

  async #awaitEnd(job: JobRecord): Promise<void> {
    const seen = await processes.waitExit(targetOf(job))
    const known = (await this.#exitFromShim(job)) ?? (seen.code === undefined && seen.signal === undefined ? undefined : seen)
    if (this.#closed || this.find(job.jid)?.state !== 'running') return
    const reason = this.#reasons.get(job.jid) ?? 'exited'
    this.#reasons.delete(job.jid)
    const exit = known ?? (await this.atEnd.exitOf(this.get(job.jid)))
    await this.atEnd.removeRemains(this.get(job.jid), reason, exit)
    this.update(job.jid, { state: 'ended', endReason: reason, exit, exitedAt: Date.now(), frozen: false })
    this.log.info({ job: job.jid, pid: job.pid, reason, ...exit }, 'job ended')
    void this.#removeDirectory(job)
  }

  /** The shim reaps the process and writes the status down durably; the kernel may tell us of the exit a moment earlier. */
  async #exitFromShim(job: JobRecord): Promise<ExitStatus | undefined> {
    if (job.directory === '') return undefined
    const late = sleep(SHIM_EXIT_MS, undefined, { ref: false })
    // A shim that is gone has told by its file, or was killed and never will.
    const told = ShimConnection.open(job.directory)
      .then((connection) => connection.exit())
      .catch(() => undefined)
    return (await Promise.race([told, late])) ?? (await readShimExit(job.directory))?.exit
  }

  /**
   * The shim's directory goes when the shim is gone: it stays for as long as descendants of the job keep its output open. By then the job may have been
   * restored, and have another shim in a directory of that name.
   */
  async #removeDirectory({ jid, directory, pid, startTicks }: JobRecord): Promise<void> {
    if (directory === '') return
    const state = await readShimState(directory).catch(() => undefined)
    if (state) await processes.waitExit(state.shim)
    // Nor is there a database to look into by then.
    if (this.#closed) return
    const now = this.find(jid)
    const isOurs = now?.state === 'ended' && now.pid === pid && now.startTicks === startTicks
    // In the same turn as the look, so that nothing comes in between.
    if (isOurs) rmSync(directory, { recursive: true, force: true })
  }
}

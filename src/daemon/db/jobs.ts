/** Rows of `jobs` ↔ JobRecord. */
import type { Database, Statement } from 'better-sqlite3'
import type { ExitStatus, StdioMode } from '../../plugins/contract/job.js'
import type { EndReason, JobBrief, JobRecord, JobState } from '../jobs/job.js'
import { write } from './write.js'

interface Row {
  readonly jid: string
  readonly type: string
  readonly pid: number
  readonly start_ticks: string
  readonly boot_id: string
  readonly host_id: string
  readonly state: string
  readonly end_reason: string
  readonly exit_code: number | null
  readonly exit_signal: number | null
  readonly uid: number
  readonly gid: number
  readonly groups: string
  readonly stdio: string
  readonly log: string
  readonly args: string
  readonly working_directory: string
  readonly details: string
  readonly gpu_enabled: number
  readonly frozen: number
  readonly directory: string
  readonly created_at: number
  readonly started_at: number
  readonly exited_at: number
}

const toRow = (job: JobRecord): Row => ({
  jid: job.jid,
  type: job.type,
  pid: job.pid,
  start_ticks: job.startTicks,
  boot_id: job.bootId,
  host_id: job.hostId,
  state: job.state,
  end_reason: job.endReason,
  exit_code: job.exit?.code ?? null,
  exit_signal: job.exit?.signal ?? null,
  uid: job.owner.uid,
  gid: job.owner.gid,
  groups: JSON.stringify(job.owner.groups),
  stdio: job.stdio,
  log: job.log,
  args: JSON.stringify(job.args),
  working_directory: job.workingDirectory,
  details: JSON.stringify(job.details),
  gpu_enabled: Number(job.gpuEnabled),
  frozen: Number(job.frozen),
  directory: job.directory,
  created_at: job.createdAt,
  started_at: job.startedAt,
  exited_at: job.exitedAt,
})

function exitOf({ exit_code: code, exit_signal: signal }: Row): ExitStatus | undefined {
  if (signal !== null) return { signal }
  return code === null ? undefined : { code }
}

const fromRow = (row: Row): JobRecord => ({
  jid: row.jid,
  type: row.type,
  pid: row.pid,
  startTicks: row.start_ticks,
  bootId: row.boot_id,
  hostId: row.host_id,
  state: row.state as JobState,
  endReason: row.end_reason as EndReason,
  exit: exitOf(row),
  owner: { uid: row.uid, gid: row.gid, groups: JSON.parse(row.groups) as number[] },
  stdio: row.stdio as StdioMode,
  log: row.log,
  args: JSON.parse(row.args) as string[],
  workingDirectory: row.working_directory,
  details: JSON.parse(row.details) as Record<string, unknown>,
  gpuEnabled: row.gpu_enabled !== 0,
  frozen: row.frozen !== 0,
  directory: row.directory,
  createdAt: row.created_at,
  startedAt: row.started_at,
  exitedAt: row.exited_at,
})

const COLUMNS = [
  'jid',
  'type',
  'pid',
  'start_ticks',
  'boot_id',
  'host_id',
  'state',
  'end_reason',
  'exit_code',
  'exit_signal',
  'uid',
  'gid',
  'groups',
  'stdio',
  'log',
  'args',
  'working_directory',
  'details',
  'gpu_enabled',
  'frozen',
  'directory',
  'created_at',
  'started_at',
  'exited_at',
] as const satisfies readonly (keyof Row)[]

/** Reading a whole row, with its four JSON texts, takes three times as long: `ps` reads every job. */
const BRIEF_COLUMNS = [
  'jid',
  'type',
  'pid',
  'start_ticks',
  'boot_id',
  'host_id',
  'state',
  'uid',
  'stdio',
  'log',
  'gpu_enabled',
  'frozen',
  'created_at',
] as const satisfies readonly (keyof Row)[]
type BriefRow = Pick<Row, (typeof BRIEF_COLUMNS)[number]>

const fromBriefRow = (row: BriefRow): JobBrief => ({
  jid: row.jid,
  type: row.type,
  pid: row.pid,
  startTicks: row.start_ticks,
  bootId: row.boot_id,
  hostId: row.host_id,
  state: row.state as JobState,
  owner: { uid: row.uid },
  stdio: row.stdio as StdioMode,
  log: row.log,
  gpuEnabled: row.gpu_enabled !== 0,
  frozen: row.frozen !== 0,
  createdAt: row.created_at,
})

/** Each write is durable when it returns. */
export class JobRows {
  private readonly insertOne: Statement<[Row]>
  private readonly updateOne: Statement<[Row]>
  private readonly removeOne: Statement<[string]>
  private readonly selectOne: Statement<[string], Row>
  private readonly selectOfPid: Statement<[number], Row>
  private readonly selectAll: Statement<[], Row>
  private readonly selectBriefs: Statement<[], BriefRow>

  constructor(db: Database) {
    // "groups" is a word of SQL.
    const quoted = COLUMNS.map((name) => `"${name}"`)
    this.insertOne = db.prepare(`INSERT INTO jobs (${quoted.join(', ')}) VALUES (${COLUMNS.map((name) => `@${name}`).join(', ')})`)
    this.updateOne = db.prepare(`UPDATE jobs SET ${COLUMNS.map((name) => `"${name}" = @${name}`).join(', ')} WHERE jid = @jid`)
    this.removeOne = db.prepare('DELETE FROM jobs WHERE jid = ?')
    this.selectOne = db.prepare('SELECT * FROM jobs WHERE jid = ?')
    this.selectOfPid = db.prepare('SELECT * FROM jobs WHERE pid = ?')
    this.selectAll = db.prepare('SELECT * FROM jobs ORDER BY created_at, jid')
    this.selectBriefs = db.prepare(`SELECT ${BRIEF_COLUMNS.join(', ')} FROM jobs ORDER BY created_at, jid`)
  }

  insert(job: JobRecord): void {
    write(() => this.insertOne.run(toRow(job)))
  }

  update(job: JobRecord): void {
    write(() => this.updateOne.run(toRow(job)))
  }

  /** With the records of its checkpoints; their files stay. */
  remove(jid: string): void {
    write(() => this.removeOne.run(jid))
  }

  get(jid: string): JobRecord | undefined {
    const row = this.selectOne.get(jid)
    return row && fromRow(row)
  }

  /** Those whose root process has, or had, that PID. */
  ofPid(pid: number): readonly JobRecord[] {
    return this.selectOfPid.all(pid).map(fromRow)
  }

  /** Oldest first. */
  all(): readonly JobRecord[] {
    return this.selectAll.all().map(fromRow)
  }

  /** The same, without what only a look at one job shows. */
  briefs(): readonly JobBrief[] {
    return this.selectBriefs.all().map(fromBriefRow)
  }
}

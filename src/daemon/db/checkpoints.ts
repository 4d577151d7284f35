/** Rows of `checkpoints` ↔ CheckpointRecord. */
import type { Database, Statement } from 'better-sqlite3'
import type { CheckpointRecord } from '../jobs/job.js'
import { write } from './write.js'

interface Row {
  readonly id: string
  readonly jid: string | null
  readonly type: string
  readonly path: string
  readonly time: number
  readonly size: number
  readonly compression: string
  readonly manifest_digest: string
}

const fromRow = (row: Row): CheckpointRecord => ({
  id: row.id,
  jid: row.jid ?? '',
  type: row.type,
  path: row.path,
  time: row.time,
  size: row.size,
  compression: row.compression,
  manifestDigest: row.manifest_digest,
})

const NEWEST_FIRST = 'ORDER BY time DESC, rowid DESC'

/** Each write is durable when it returns. */
export class CheckpointTable {
  private readonly insertOne: Statement<[Row]>
  private readonly removeOne: Statement<[string]>
  private readonly selectOne: Statement<[string], Row>
  private readonly selectPrefix: Statement<[{ from: string; to: string }], Row>
  private readonly selectAll: Statement<[], Row>
  private readonly selectJob: Statement<[string], Row>
  private readonly selectPath: Statement<[string], Row>
  private readonly selectLatest: Statement<[], Row & { readonly jid: string; readonly count: number }>

  constructor(db: Database) {
    this.insertOne = db.prepare(
      `INSERT INTO checkpoints (id, jid, type, path, time, size, compression, manifest_digest)
       VALUES (@id, (SELECT jid FROM jobs WHERE jid = @jid), @type, @path, @time, @size, @compression, @manifest_digest)`,
    )
    this.removeOne = db.prepare('DELETE FROM checkpoints WHERE id = ?')
    this.selectOne = db.prepare('SELECT * FROM checkpoints WHERE id = ?')
    this.selectPrefix = db.prepare('SELECT * FROM checkpoints WHERE id >= @from AND id < @to ORDER BY id')
    this.selectAll = db.prepare(`SELECT * FROM checkpoints ${NEWEST_FIRST}`)
    this.selectJob = db.prepare(`SELECT * FROM checkpoints WHERE jid = ? ${NEWEST_FIRST}`)
    this.selectPath = db.prepare(`SELECT * FROM checkpoints WHERE path = ? ${NEWEST_FIRST} LIMIT 1`)
    this.selectLatest = db.prepare(
      `SELECT * FROM (
         SELECT *, count(*) OVER (PARTITION BY jid) AS count, row_number() OVER (PARTITION BY jid ${NEWEST_FIRST}) AS place
         FROM checkpoints WHERE jid IS NOT NULL
       ) WHERE place = 1`,
    )
  }

  /** A checkpoint of a job that is no longer there becomes one of no job. */
  insert(record: CheckpointRecord): void {
    const { manifestDigest, ...same } = record
    write(() => this.insertOne.run({ ...same, manifest_digest: manifestDigest }))
  }

  remove(id: string): void {
    write(() => this.removeOne.run(id))
  }

  get(id: string): CheckpointRecord | undefined {
    const row = this.selectOne.get(id)
    return row && fromRow(row)
  }

  withPrefix(prefix: string): readonly CheckpointRecord[] {
    return this.selectPrefix.all({ from: prefix, to: `${prefix}\u{10ffff}` }).map(fromRow)
  }

  /** Newest first; of all jobs for undefined. */
  ofJob(jid: string | undefined): readonly CheckpointRecord[] {
    return (jid === undefined ? this.selectAll.all() : this.selectJob.all(jid)).map(fromRow)
  }

  /** The newest that was made there. */
  byPath(path: string): CheckpointRecord | undefined {
    const row = this.selectPath.get(path)
    return row && fromRow(row)
  }

  /** The newest of each job, and how many it has. */
  latestByJob(): ReadonlyMap<string, { readonly record: CheckpointRecord; readonly count: number }> {
    return new Map(this.selectLatest.all().map((row) => [row.jid, { record: fromRow(row), count: row.count }]))
  }
}

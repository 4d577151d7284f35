/** The machines that wrote to this database. */
import type { Database, Statement } from 'better-sqlite3'
import { write } from './write.js'

export interface HostRecord {
  readonly id: string
  readonly name: string
  readonly bootId: string
  /** Milliseconds since the epoch. */
  readonly seenAt: number
}

export class HostTable {
  private readonly upsert: Statement<[HostRecord]>
  private readonly selectAll: Statement<[], HostRecord>

  constructor(db: Database) {
    this.upsert = db.prepare(
      `INSERT INTO hosts (id, name, boot_id, seen_at) VALUES (@id, @name, @bootId, @seenAt)
       ON CONFLICT (id) DO UPDATE SET name = excluded.name, boot_id = excluded.boot_id, seen_at = excluded.seen_at`,
    )
    this.selectAll = db.prepare('SELECT id, name, boot_id AS bootId, seen_at AS seenAt FROM hosts ORDER BY id')
  }

  put(host: HostRecord): void {
    write(() => this.upsert.run(host))
  }

  all(): readonly HostRecord[] {
    return this.selectAll.all()
  }
}

/**
 * The schema, as the steps that led to it: entry N brings a database from version N to N + 1. A step that was released is never changed.
 * Text in a module and not files beside it, so that the bundle carries it.
 */
export const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE hosts (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    seen_at INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE jobs (
    jid TEXT PRIMARY KEY,
    type TEXT NOT NULL,
    pid INTEGER NOT NULL,
    start_ticks TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    host_id TEXT NOT NULL,
    state TEXT NOT NULL,
    end_reason TEXT NOT NULL,
    exit_code INTEGER,
    exit_signal INTEGER,
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    groups TEXT NOT NULL,
    stdio TEXT NOT NULL,
    log TEXT NOT NULL,
    args TEXT NOT NULL,
    working_directory TEXT NOT NULL,
    details TEXT NOT NULL,
    gpu_enabled INTEGER NOT NULL,
    frozen INTEGER NOT NULL,
    directory TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    exited_at INTEGER NOT NULL
  ) STRICT;

  CREATE TABLE checkpoints (
    id TEXT PRIMARY KEY,
    jid TEXT REFERENCES jobs (jid) ON DELETE CASCADE,
    type TEXT NOT NULL,
    path TEXT NOT NULL,
    time INTEGER NOT NULL,
    size INTEGER NOT NULL,
    compression TEXT NOT NULL,
    manifest_digest TEXT NOT NULL
  ) STRICT;
  CREATE INDEX checkpoints_of_job ON checkpoints (jid, time);
  CREATE INDEX checkpoints_at_path ON checkpoints (path);
  `,
]

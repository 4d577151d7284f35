import { spawnSync } from 'node:child_process'
import {
  chownSync,
  existsSync,
  linkSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  chmodSync,
  mkdirSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { CheckpointRecord, JobRecord } from '../jobs/job.js'
import { CheckpointTable } from './checkpoints.js'
import { openDatabase, type OpenDatabase } from './database.js'
import { JobRows } from './jobs.js'
import { MIGRATIONS } from './migrations.js'

const JOB: JobRecord = {
  jid: 'train',
  type: 'process',
  pid: 4_000_000,
  startTicks: '18446744073709551615',
  bootId: 'b',
  hostId: 'h',
  state: 'running',
  endReason: '',
  exit: undefined,
  owner: { uid: 1000, gid: 100, groups: [100, 4_294_967_294] },
  stdio: 'tty',
  log: '/var/log/x',
  args: ['python3', '-c', "print('ü\u0000')"],
  workingDirectory: '/',
  details: { path: 'python3', args: [] },
  gpuEnabled: true,
  frozen: false,
  directory: '/run/cedana/jobs/train',
  createdAt: 1_790_000_000_000,
  startedAt: 1_790_000_000_001,
  exitedAt: 0,
}
const CHECKPOINT: CheckpointRecord = {
  id: '6e7c0000-0000-4000-8000-000000000000',
  jid: 'train',
  type: 'process',
  path: '/tmp/c',
  time: 5,
  size: 2 ** 45,
  compression: 'none',
  manifestDigest: 'd',
}

let directory: string
let path: string
let opened: OpenDatabase | undefined
const open = (): OpenDatabase => (opened = openDatabase(path))
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cedana-db-'))
  path = join(directory, 'cedana.db')
})
afterEach(() => {
  opened?.close()
  opened = undefined
  rmSync(directory, { recursive: true, force: true })
})

describe('records', () => {
  it('come back as they went in, also after a restart', () => {
    const first = open()
    first.jobs.insert(JOB)
    first.jobs.insert({ ...JOB, jid: 'killed', state: 'ended', endReason: 'killed', exit: { signal: 9 } })
    first.jobs.insert({ ...JOB, jid: 'failed', state: 'ended', endReason: 'exited', exit: { code: 0 }, frozen: true, gpuEnabled: false })
    first.checkpoints.insert(CHECKPOINT)
    first.close()
    const { jobs, checkpoints } = open()
    expect(jobs.get('train')).toEqual(JOB)
    expect(jobs.get('killed')?.exit).toEqual({ signal: 9 })
    expect(jobs.get('failed')).toMatchObject({ exit: { code: 0 }, frozen: true, gpuEnabled: false })
    expect(jobs.get('none')).toBeUndefined()
    expect(jobs.all().map(({ jid }) => jid)).toEqual(['failed', 'killed', 'train'])
    expect(checkpoints.get(CHECKPOINT.id)).toEqual(CHECKPOINT)
  })

  it('change and go; checkpoint records go with their job', () => {
    const { jobs, checkpoints } = open()
    jobs.insert(JOB)
    checkpoints.insert(CHECKPOINT)
    checkpoints.insert({ ...CHECKPOINT, id: 'bare', jid: '' })
    jobs.update({ ...JOB, state: 'ended', endReason: 'exited', exit: { code: 3 }, exitedAt: 9 })
    expect(jobs.get('train')).toMatchObject({ state: 'ended', exit: { code: 3 }, exitedAt: 9 })
    expect(() => jobs.insert(JOB)).toThrow(expect.objectContaining({ code: 'BUG' }))
    jobs.remove('train')
    expect(jobs.all()).toEqual([])
    expect(jobs.briefs()).toEqual([])
    expect(checkpoints.ofJob(undefined).map(({ id, jid }) => [id, jid])).toEqual([['bare', '']])
    checkpoints.insert({ ...CHECKPOINT, jid: 'deleted-meanwhile' })
    expect(checkpoints.get(CHECKPOINT.id)?.jid).toBe('')
    checkpoints.remove('bare')
    expect(checkpoints.get('bare')).toBeUndefined()
  })

  it('of checkpoints are found by job, prefix and path, newest first', () => {
    const { jobs, checkpoints } = open()
    jobs.insert(JOB)
    jobs.insert({ ...JOB, jid: 'idle' })
    for (const [id, time] of [
      ['ab1', 1],
      ['ab2', 3],
      ['ac3', 3],
      ['b_4', 2],
    ] as const)
      checkpoints.insert({ ...CHECKPOINT, id, time, path: `/c/${time}` })
    expect(checkpoints.ofJob('train').map(({ id }) => id)).toEqual(['ac3', 'ab2', 'b_4', 'ab1'])
    expect(checkpoints.ofJob('idle')).toEqual([])
    expect(checkpoints.withPrefix('ab').map(({ id }) => id)).toEqual(['ab1', 'ab2'])
    expect(checkpoints.withPrefix('%')).toEqual([])
    expect(checkpoints.byPath('/c/3')?.id).toBe('ac3')
    const latest = checkpoints.latestByJob()
    expect([...latest.keys()]).toEqual(['train'])
    expect(latest.get('train')).toMatchObject({ record: { id: 'ac3' }, count: 4 })
  })

  it('of hosts are renewed', () => {
    const { hosts } = open()
    hosts.put({ id: 'h', name: 'a', bootId: '1', seenAt: 1 })
    hosts.put({ id: 'h', name: 'b', bootId: '2', seenAt: 2 })
    expect(hosts.all()).toEqual([{ id: 'h', name: 'b', bootId: '2', seenAt: 2 }])
  })

  it('of 1,000 jobs with checkpoints are listed in a moment', () => {
    open().close()
    const raw = new Database(path)
    const rows = { jobs: new JobRows(raw), checkpoints: new CheckpointTable(raw) }
    raw.transaction(() => {
      for (let n = 0; n < 1000; n++) {
        rows.jobs.insert({ ...JOB, jid: `job-${n}` })
        rows.checkpoints.insert({ ...CHECKPOINT, id: `c-${n}`, jid: `job-${n}` })
      }
    })()
    raw.close()
    const { jobs, checkpoints } = open()
    // Of the processor, the best of five: what else runs on the machine is not what is asked.
    const spentMs = Array.from({ length: 5 }, () => {
      const before = process.cpuUsage()
      expect(jobs.all()).toHaveLength(1000)
      expect(jobs.briefs()).toHaveLength(1000)
      expect(jobs.all()[7]).toMatchObject(jobs.briefs()[7]!)
      expect(checkpoints.latestByJob().size).toBe(1000)
      const { user, system } = process.cpuUsage(before)
      return (user + system) / 1000
    })
    expect(Math.min(...spentMs)).toBeLessThan(200)
  })

  it('are there after kill -9', () => {
    open().jobs.insert(JOB)
    const script = `
      const db = require(${JSON.stringify(createRequire(import.meta.url).resolve('better-sqlite3'))})(${JSON.stringify(path)})
      db.prepare("UPDATE jobs SET state = 'ended'").run()
      process.kill(process.pid, 'SIGKILL')`
    expect(spawnSync(process.execPath, ['-e', script]).signal).toBe('SIGKILL')
    opened?.close()
    expect(open().jobs.get('train')?.state).toBe('ended')
  })
})

describe('the file', () => {
  it('is private, and so is what SQLite puts beside it', () => {
    open().jobs.insert(JOB)
    for (const suffix of ['', '-wal', '-shm']) expect(statSync(path + suffix).mode & 0o777).toBe(0o600)
  })

  it('is made private when it was not', () => {
    open().close()
    chmodSync(path, 0o644)
    open()
    expect(statSync(path).mode & 0o777).toBe(0o600)
  })

  const refused = (message: RegExp): void =>
    expect(open).toThrow(expect.objectContaining({ code: 'HOST_UNFIT', message: expect.stringMatching(message) }))

  it('is refused, and stays as it is, when it is no database', () => {
    const text = 'this is not a database, but long enough to be looked at as one. '.repeat(50)
    writeFileSync(path, text)
    refused(/is not a SQLite database/)
    expect(readFileSync(path, 'utf8')).toBe(text)
  })

  it('is refused when it is another program’s', () => {
    const other = new Database(path)
    other.exec('CREATE TABLE jobs (id TEXT)')
    other.close()
    refused(/is the database of another program/)
  })

  it('is refused when it is damaged', () => {
    const db = open()
    for (let n = 0; n < 200; n++) db.jobs.insert({ ...JOB, jid: `job-${n}` })
    db.close()
    const bytes = readFileSync(path)
    bytes.fill(0xab, 4096, bytes.length - 4096)
    writeFileSync(path, bytes)
    refused(/is damaged/)
  })

  it('is refused when a newer cedana made it', () => {
    open().close()
    const newer = new Database(path)
    newer.pragma(`user_version = ${MIGRATIONS.length + 1}`)
    newer.close()
    refused(/made by a newer cedana/)
  })

  it('is refused as a link', () => {
    const victim = join(directory, 'victim')
    writeFileSync(victim, '')
    symlinkSync(victim, path)
    refused(/is a symbolic link/)
    rmSync(path)
    linkSync(victim, path)
    refused(/hard link/)
  })

  it('is refused beside a link that somebody left for SQLite', () => {
    symlinkSync('/nowhere', `${path}-wal`)
    refused(/-wal is a symbolic link/)
    expect(existsSync('/nowhere')).toBe(false)
  })

  it.runIf(process.getuid?.() === 0)('is refused when it is another user’s', () => {
    writeFileSync(path, '')
    chownSync(path, 1234, 1234)
    refused(/belongs to another user \(uid 1234\)/)
    rmSync(path)
    writeFileSync(`${path}-journal`, '')
    chownSync(`${path}-journal`, 1234, 1234)
    refused(/-journal belongs to another user/)
  })

  it('is refused in a directory where everybody may replace it', () => {
    const shared = join(directory, 'shared')
    mkdirSync(shared)
    chmodSync(shared, 0o777)
    path = join(shared, 'x.db')
    refused(/lets everybody replace its files/)
    chmodSync(shared, 0o1777)
    open()
  })

  it('says so when a directory is in its place', () => {
    mkdirSync(path)
    refused(/cannot open database|is not a regular file/)
  })
})

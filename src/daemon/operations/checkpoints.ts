/** Checkpoints as users see them: list, look inside, verify, export, delete. Named by id, by the beginning of one, or by path. */
import { closeSync, existsSync } from 'node:fs'
import { lstat } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Caller } from '../../plugins/contract/job.js'
import { files, mayWrite } from '../host/files.js'
import { readContents } from '../images/contents.js'
import { ArchiveExport, EXPORT_FORMATS } from '../images/export.js'
import { at, OPEN_DIRECTORY } from '../images/files.js'
import { CheckpointReader, verify } from '../images/reader.js'
import { peek } from '../images/sources.js'
import { attempt } from '../images/failures.js'
import { removeEntry } from '../images/writer.js'
import type { CheckpointRecord } from '../jobs/job.js'
import { mayUseJob } from './authorize.js'
import { begin, ensureDirectories, type Environment, packingLimits, unpackingLimits } from './environment.js'
import { gpuContents } from './gpu.js'
import { findJob } from './target.js'
import type { Call, CheckpointView, ExportCheckpointRequest } from './verbs.js'

export const checkpointView = (record: CheckpointRecord): CheckpointView => ({
  id: record.id,
  jid: record.jid,
  type: record.type,
  path: record.path,
  time: record.time,
  size: record.size,
  compression: record.compression,
  exists: existsSync(record.path),
})

const missing = (id: string): CedanaError =>
  new CedanaError('NO_SUCH_CHECKPOINT', id.includes('/') ? `no checkpoint is recorded at ${id}` : 'checkpoint not found', {
    detail: { id },
  })

/** Checkpoints of jobs belong to the job's owner; of a bare process, to root. Paths are opened as the caller and need no such rule. */
function mayUse(env: Environment, caller: Caller, record: CheckpointRecord): void {
  if (caller.uid === 0) return
  const job = record.jid === '' ? undefined : env.jobs.find(record.jid)
  if (!job) throw new CedanaError('PERMISSION_DENIED', `checkpoint ${record.id} belongs to another user`)
  mayUseJob(caller, job)
}

/** The recorded checkpoint of that id, unique beginning of an id, or path. */
function find(env: Environment, caller: Caller, id: string): CheckpointRecord | undefined {
  const record = env.checkpoints.get(id) ?? env.checkpoints.byPath(id)
  const matches = record ? [record] : /^[0-9a-f-]{4,}$/.test(id) ? env.checkpoints.withPrefix(id) : []
  if (matches.length > 1) {
    throw new CedanaError('BAD_OPTIONS', `${id} fits several checkpoints: ${matches.map((one) => one.id).join(', ')}`)
  }
  const [match] = matches
  if (match) mayUse(env, caller, match)
  return match
}

/** A record for a path that nobody recorded: somebody else's checkpoint, or one that was copied here. */
const unrecorded = (path: string): CheckpointRecord => ({
  id: '',
  jid: '',
  type: '',
  path,
  time: 0,
  size: 0,
  compression: '',
  manifestDigest: '',
})

function locate(env: Environment, caller: Caller, id: string): CheckpointRecord {
  const record = find(env, caller, id)
  if (record) return record
  if (!id.includes('/')) throw missing(id)
  return unrecorded(id)
}

export function listCheckpoints(env: Environment, call: Call, jid: string): readonly CheckpointView[] {
  const records = env.checkpoints.ofJob(jid === '' ? undefined : (findJob(env, call.caller, jid)?.jid ?? jid))
  const mine = records.filter((record) => call.caller.uid === 0 || env.jobs.find(record.jid)?.owner.uid === call.caller.uid)
  return mine.map(checkpointView)
}

export async function inspectCheckpoint(
  env: Environment,
  call: Call,
  id: string,
): Promise<{ checkpoint: CheckpointView; manifest: object; contents: object }> {
  const record = locate(env, call.caller, id)
  const source = await peek(files, { caller: call.caller, path: record.path })
  try {
    const { manifest } = source
    const view = checkpointView(record)
    const checkpoint =
      record.id !== '' || !manifest
        ? view
        : {
            ...view,
            jid: manifest.jid,
            type: manifest.type,
            time: Date.parse(manifest.createdAt),
            size: manifest.totalBytes,
            compression: manifest.compression,
          }
    const [contents, gpus] = await Promise.all([readContents(source), gpuContents(env, manifest)])
    const processes = contents.processes.map((one) => ({ ...one, ...(gpus.has(one.pid) ? { gpu: gpus.get(one.pid) } : {}) }))
    return { checkpoint, manifest: manifest ?? {}, contents: { ...contents, processes } }
  } finally {
    source.close()
  }
}

export async function verifyCheckpoint(env: Environment, call: Call, id: string): Promise<{ files: number; bytes: number; path: string }> {
  const { op } = begin(env, 'verify', call)
  await using _ = op
  const record = locate(env, call.caller, id)
  const request = { caller: call.caller, path: record.path, signal: call.signal }
  const { manifest, manifestDigest } = await op.step('verify', () => verify(files, request))
  if (!manifest)
    throw new CedanaError('IMAGE_CORRUPT', `${record.path} has no manifest to verify it by`, { hint: 'it was not made by cedana' })
  if (record.manifestDigest !== '' && record.manifestDigest !== manifestDigest) {
    throw new CedanaError('IMAGE_CORRUPT', `${record.path} is another checkpoint than the one recorded as ${record.id}`)
  }
  return op.done({ files: manifest.files.length, bytes: manifest.totalBytes, path: record.path })
}

/** What is exported was verified before: whoever gets it may not be able to. */
export async function exportCheckpoint(
  env: Environment,
  call: Call,
  { id, path, format, image }: ExportCheckpointRequest,
): Promise<{ path: string; size: number }> {
  const { op, signal } = begin(env, 'export', call)
  await using _ = op
  const { caller } = call
  const form = EXPORT_FORMATS.find((one) => one === (format || 'tar'))
  if (form === undefined)
    throw new CedanaError('BAD_OPTIONS', `unknown format ${format}`, { hint: `use one of ${EXPORT_FORMATS.join(', ')}` })
  const record = locate(env, caller, id)
  const reader = await op.step(
    'open checkpoint',
    async () => {
      await ensureDirectories(env)
      return CheckpointReader.open(files, { caller, path: record.path, ...unpackingLimits(env), signal })
    },
    { always: (opened) => opened.close() },
  )
  await op.step('verify', () => Promise.all([reader.verifyImages(), reader.verifyPages()]))
  const archive = await op.step(
    'open archive',
    async () => ArchiveExport.create(files, { caller, maker: await env.self(), path, form, image, ...packingLimits(env) }),
    { always: (made) => made.close() },
  )
  const breakOff = (): void => archive.breakOff()
  signal.addEventListener('abort', breakOff, { once: true })
  const size = await op.step('write archive', () => archive.write(reader.images, reader.imagesFd, reader.manifest))
  env.log.info({ op: 'export', checkpoint: record.path, path, bytes: size }, 'checkpoint exported')
  return op.done({ path, size })
}

/** Files first, record last: a checkpoint that is still listed can be deleted again. */
export async function deleteCheckpoint(env: Environment, call: Call, id: string): Promise<{ path: string }> {
  const record = find(env, call.caller, id)
  if (!record) throw missing(id)
  using _ = record.jid === '' ? undefined : env.locks.take(record.jid, 'delete checkpoint')
  await discard(env, call.caller, record)
  env.log.info({ op: 'delete checkpoint', path: record.path }, 'checkpoint deleted')
  return { path: record.path }
}

async function discard(env: Environment, caller: Caller, record: CheckpointRecord): Promise<void> {
  // A restore that was told the path holds that.
  using _ = env.locks.take(record.path, 'delete checkpoint')
  // Another checkpoint may have been made at the path since this one went.
  if (env.checkpoints.byPath(record.path)?.id === record.id) await removeFiles(caller, record.path)
  env.checkpoints.remove(record.id)
}

/**
 * Removes the older checkpoints of a job but for `keep` (at least 1), the one just made among them. Those whose files are gone count for nothing. The dump has
 * succeeded whatever becomes of it: answers what there is to say.
 */
export async function keepLast(env: Environment, caller: Caller, jid: string, keep: number): Promise<readonly string[]> {
  const isThere = ({ id, path }: CheckpointRecord): boolean => existsSync(path) && env.checkpoints.byPath(path)?.id === id
  const messages: string[] = []
  for (const record of env.checkpoints.ofJob(jid).filter(isThere).slice(keep)) {
    try {
      await discard(env, caller, record)
      messages.push(`Removed older checkpoint ${record.path}`)
    } catch (thrown) {
      messages.push(`Warning: older checkpoint ${record.path} stays: ${CedanaError.from(thrown).message}`)
    }
  }
  return messages
}

/**
 * What cedana made: an archive, or a directory of files. Whoever is not root must be able to write to the directory it is in, which is opened as
 * them, as it was to dump there, and must own it.
 */
export async function removeFiles(caller: Caller, path: string): Promise<void> {
  if (!existsSync(path)) return
  await attempt(`remove ${path}`, async () => {
    const parent = await files.openAs(caller, undefined, dirname(path), OPEN_DIRECTORY)
    try {
      if (!(await mayWrite(caller, dirname(path)))) throw new CedanaError('PERMISSION_DENIED', `you may not remove ${path}`)
      const entry = await lstat(at(parent, basename(path)))
      if (caller.uid !== 0 && entry.uid !== caller.uid) throw new CedanaError('PERMISSION_DENIED', `${path} belongs to another user`)
      await removeEntry(parent, basename(path), entry.isDirectory() ? 'directory' : 'file')
    } finally {
      closeSync(parent)
    }
  })
}

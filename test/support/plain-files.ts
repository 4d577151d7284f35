/** `Files` without the addon: node:fs, MD5 for digests, and an archive that is JSON with a checksum. For tests of daemon/images. */
import { createHash } from 'node:crypto'
import { closeSync, existsSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { mkdir, open, rename } from 'node:fs/promises'
import { close, open as openCallback } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import {
  at,
  OPEN_DIRECTORY,
  OPEN_NEW,
  type FileDigest,
  type Files,
  type ImageDirectory,
  type Packer,
  type PackRequest,
} from '../../src/daemon/images/files.js'

const openFd = promisify(openCallback)
const closeFd = promisify(close)

export const digestOf = (bytes: Uint8Array): string => createHash('md5').update(bytes).digest('hex')
const failed = (code: string): Error => Object.assign(new Error(code), { code })
const under = (directoryFd: number | undefined, path: string): string => (directoryFd === undefined ? path : at(directoryFd, path))

async function digestFile(directoryFd: number, name: string): Promise<FileDigest> {
  await using file = await open(at(directoryFd, name))
  const bytes = await file.readFile()
  return { name, size: bytes.length, digest: digestOf(bytes) }
}

interface Packed {
  readonly members: readonly (readonly [name: string, base64: string])[]
  readonly sum: string
}

/** Reads through the descriptor's path, so that the archive may be opened by another process' rights. */
function unpack(fd: number): readonly { readonly name: string; readonly content: Buffer }[] {
  try {
    const { members, sum } = JSON.parse(readFileSync(`/proc/self/fd/${fd}`, 'utf8')) as Packed
    if (digestOf(Buffer.from(JSON.stringify(members))) !== sum) throw failed('EBADMSG')
    return members.map(([name, base64]) => ({ name, content: Buffer.from(base64, 'base64') }))
  } catch {
    throw failed('EBADMSG')
  }
}

/** Member after member to one output after the other. */
function pack({ outputFds }: PackRequest): Packer {
  const outputs = outputFds.map((fd) => ({ fd: openSync(`/proc/self/fd/${fd}`, 'r+'), members: [] as [string, string][] }))
  let count = 0
  return {
    handle: {},
    async add(directoryFd, names) {
      for (const name of names)
        outputs[count++ % outputs.length]?.members.push([name, readFileSync(at(directoryFd, name)).toString('base64')])
      return Promise.all(names.map((name) => digestFile(directoryFd, name)))
    },
    finish() {
      const made = outputs.map(({ fd, members }) => {
        const bytes = Buffer.from(JSON.stringify({ members, sum: digestOf(Buffer.from(JSON.stringify(members))) }))
        writeFileSync(fd, bytes)
        closeSync(fd)
        return { size: bytes.length, digest: digestOf(bytes) }
      })
      return Promise.resolve(made)
    },
    progress: () => ({ packedBytes: count, spilledBytes: 0 }),
    abort: () => Promise.resolve(),
  }
}

const memberDigests = (members: ReturnType<typeof unpack>): FileDigest[] =>
  members.map(({ name, content }) => ({ name, size: content.length, digest: digestOf(content) }))

async function unpackInto(into: ImageDirectory | undefined, members: ReturnType<typeof unpack>): Promise<readonly FileDigest[]> {
  for (const { name, content } of into ? members : []) {
    const fd = await openFd(at(into?.fd ?? -1, name), OPEN_NEW, 0o600)
    writeFileSync(fd, content)
    await closeFd(fd)
  }
  return memberDigests(members)
}

export const plainFiles: Files = {
  openAs: (_, directoryFd, path, flags, mode) => openFd(under(directoryFd, path), flags, mode ?? 0),
  async mkdirAs(_, directoryFd, name, mode) {
    await mkdir(at(directoryFd, name), { mode })
    return openFd(at(directoryFd, name), OPEN_DIRECTORY)
  },
  async renameNoReplace(directoryFd, from, to) {
    if (existsSync(at(directoryFd, to))) throw failed('EEXIST')
    await rename(at(directoryFd, from), at(directoryFd, to))
  },
  digestFiles: (directoryFd, names) => Promise.all(names.map((name) => digestFile(directoryFd, name))),
  digestBytes: digestOf,
  sha256: (fd, { offset, size }) => {
    const bytes = readFileSync(`/proc/self/fd/${fd}`).subarray(offset, offset + size)
    return Promise.resolve(createHash('sha256').update(bytes).digest('hex'))
  },
  pack,
  makeImages(_, spillDirectory) {
    const path = mkdtempSync(join(spillDirectory, 'images-'))
    const fd = openSync(path, OPEN_DIRECTORY)
    return {
      fd,
      handle: {},
      clear() {
        for (const name of readdirSync(path)) rmSync(join(path, name))
      },
      close() {
        closeSync(fd)
        rmSync(path, { recursive: true })
      },
    }
  },
  async unpackArchive({ fd }, { into }) {
    return { files: await unpackInto(into, unpack(fd)), shards: [] }
  },
  async unpackShards(shardFds, _, expected, { into }) {
    const members = shardFds.flatMap(unpack)
    if (members.length !== expected.length) throw failed('EBADMSG')
    const shards = shardFds
      .map((fd) => readFileSync(`/proc/self/fd/${fd}`))
      .map((bytes) => ({ size: bytes.length, digest: digestOf(bytes) }))
    return { files: await unpackInto(into, members), shards }
  },
  async copyImages(directoryFd, names, { into }) {
    const members = names.map((name) => ({ name, content: readFileSync(at(directoryFd, name)) }))
    return { files: await unpackInto(into, members), shards: [] }
  },
  // Memory is written by the addon alone.
  planMemory: () => undefined,
  memoryWriter() {
    throw failed('ENOTSUP')
  },
  archiveCanSkip: () => false,
  archiveList: (archiveFd) => Promise.resolve(unpack(archiveFd).map(({ name, content }) => ({ name, offset: 0, size: content.length }))),
  async archiveRead({ fd }, _isShard, names, maxBytes) {
    const members = unpack(fd).filter(({ name }) => names?.includes(name) ?? true)
    return Promise.resolve(members.map(({ name, content }) => ({ name, size: content.length, content: content.subarray(0, maxBytes) })))
  },
}

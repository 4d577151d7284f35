/** `Files` without the addon: node:fs, MD5 for digests, and an archive that is JSON with a checksum. For tests of daemon/images. */
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { mkdir, open, rename } from 'node:fs/promises'
import { close, open as openCallback } from 'node:fs'
import { promisify } from 'node:util'
import { at, OPEN_DIRECTORY, OPEN_NEW, type FileDigest, type Files } from '../../src/daemon/images/files.js'

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
  archiveCreate({ directoryFd, names, outputFd, onProgress }) {
    const members = names.map((name) => [name, readFileSync(at(directoryFd, name)).toString('base64')])
    const bytes = Buffer.from(JSON.stringify({ members, sum: digestOf(Buffer.from(JSON.stringify(members))) }))
    writeFileSync(outputFd, bytes)
    onProgress?.({ readBytes: bytes.length, writtenBytes: bytes.length })
    return Promise.resolve({ size: bytes.length, digest: digestOf(bytes) })
  },
  async archiveExtract(archiveFd, _, directoryFd) {
    const members = unpack(archiveFd)
    for (const { name, content } of members) {
      const fd = await openFd(at(directoryFd, name), OPEN_NEW, 0o600)
      writeFileSync(fd, content)
      await closeFd(fd)
    }
    return members.map(({ name, content }) => ({ name, size: content.length, digest: digestOf(content) }))
  },
  async archiveRead(archiveFd, _, names, maxBytes) {
    const members = unpack(archiveFd).filter(({ name }) => names?.includes(name) ?? true)
    return Promise.resolve(members.map(({ name, content }) => ({ name, size: content.length, content: content.subarray(0, maxBytes) })))
  },
}

/** The images of an archive or of streams, unpacked into memory, or only looked at. */
import { closeSync, fstatSync, openSync } from 'node:fs'
import { compare, corrupt, unreadable } from './damage.js'
import { errnoOf } from './failures.js'
import { at, OPEN_UNTRUSTED, type Files, type Unpacked, type UnpackOptions } from './files.js'
import type { Manifest } from './manifest.js'
import { reopened, type Opened } from './opened.js'

/** The images of an archive or of shards; undefined: they are files already. Throws IMAGE_CORRUPT unless the shards are what they were. */
export async function unpack(
  files: Files,
  opened: Opened,
  options: UnpackOptions,
  manifest: Manifest | undefined,
): Promise<Unpacked | undefined> {
  return unpackRaw(files, opened, options, manifest).catch((thrown: unknown) => {
    // No room is no fault of the checkpoint.
    throw errnoOf(thrown) === 'ENOSPC' ? thrown : unreadable(thrown, opened.path)
  })
}

async function unpackRaw(
  files: Files,
  { fd, path, format, range, sha256, shards }: Opened,
  options: UnpackOptions,
  manifest: Manifest | undefined,
): Promise<Unpacked | undefined> {
  // Those that are looked at in part are looked at again.
  const isPart = options.into !== undefined && options.writer !== undefined
  if (format) {
    const [unpacked, found] = await Promise.all([
      reopened(fd, (own) => files.unpackArchive({ fd: own, format, range }, options)),
      sha256 === undefined || isPart ? sha256 : files.sha256(fd, range ?? { offset: 0, size: fstatSync(fd).size }),
    ])
    if (found !== sha256) throw corrupt(path, [{ name: `blobs/sha256/${sha256}`, what: 'has changed content' }])
    return unpacked
  }
  if (!shards || !manifest) return undefined
  const expected = manifest.shards ?? []
  const missing = expected.filter(({ name }) => !shards.names.includes(name))
  if (missing.length > 0)
    throw corrupt(
      path,
      missing.map(({ name }) => ({ name, what: 'is missing' })),
    )
  const fds: number[] = []
  try {
    for (const { name } of expected) fds.push(openSync(at(fd, name), OPEN_UNTRUSTED))
    const unpacked = await files.unpackShards(fds, shards.format, manifest.files, options)
    if (isPart) return unpacked
    const faults = compare(
      expected,
      unpacked.shards.map((found, index) => ({ ...found, name: expected[index]?.name ?? '' })),
    )
    if (faults.length > 0) throw corrupt(path, faults)
    return unpacked
  } finally {
    for (const one of fds) closeSync(one)
  }
}

/** What a checkpoint is compared by, and how it is said that it is not what it was. */
import { CedanaError } from '../../plugins/contract/errors.js'
import { attempt, errnoOf, failure } from './failures.js'
import type { FileDigest, ImageFile, ImageSource } from './files.js'
import type { Manifest } from './manifest.js'

/** Named in the message; the rest is counted. */
const MAX_NAMED = 3

interface Fault {
  readonly name: string
  readonly what: string
}

export function compareSizes(expected: readonly FileDigest[], found: readonly ImageFile[]): readonly Fault[] {
  const sizes = new Map(found.map(({ name, size }) => [name, size]))
  return expected.flatMap(({ name, size }) => {
    const actual = sizes.get(name)
    if (actual === undefined) return [{ name, what: 'is missing' }]
    if (actual < size) return [{ name, what: `is truncated: ${actual} of ${size} bytes` }]
    return actual > size ? [{ name, what: `is too long: ${actual} instead of ${size} bytes` }] : []
  })
}

export function compare(expected: readonly FileDigest[], found: readonly FileDigest[]): readonly Fault[] {
  const faults = compareSizes(expected, found)
  const faulty = new Set(faults.map(({ name }) => name))
  const digests = new Map(found.map(({ name, digest }) => [name, digest]))
  const changed = expected.filter(({ name, digest }) => !faulty.has(name) && digests.get(name) !== digest)
  return [...faults, ...changed.map(({ name }) => ({ name, what: 'has changed content' }))]
}

export function corrupt(path: string, faults: readonly Fault[]): CedanaError {
  const named = faults.slice(0, MAX_NAMED).map(({ name, what }) => `${name} ${what}`)
  const more = faults.length > MAX_NAMED ? ` and ${faults.length - MAX_NAMED} more` : ''
  return new CedanaError('IMAGE_CORRUPT', `checkpoint ${path} is damaged: ${named.join(', ')}${more}`, {
    detail: { path, files: faults.map(({ name }) => name) },
    hint: 'use another checkpoint',
  })
}

/** Of an archive, by what its reader says. */
const DAMAGES: Readonly<Record<string, string>> = {
  EBADMSG: 'it is cut off or not what its name says',
  EEXIST: 'it has two files of one name',
}

export function unreadable(thrown: unknown, path: string): CedanaError {
  const damage = DAMAGES[errnoOf(thrown) ?? '']
  if (damage === undefined) return failure(thrown, `read ${path}`)
  return new CedanaError('IMAGE_CORRUPT', `${path} is damaged: ${damage}`, {
    cause: thrown,
    detail: { files: [path] },
    hint: 'use another checkpoint',
  })
}

/** Sizes first: a truncated checkpoint is refused without reading it, and before CRIU can wait for what is not there. */
export async function compareAll(
  manifest: Manifest,
  path: string,
  source: ImageSource,
  digests: readonly FileDigest[] | ((names: readonly string[]) => Promise<readonly FileDigest[]>),
  concerned: (file: FileDigest) => boolean = () => true,
): Promise<void> {
  const isKnown = typeof digests !== 'function'
  const sizes = compareSizes(manifest.files, isKnown ? digests : await source.list())
  if (sizes.length > 0) throw corrupt(path, sizes)
  const expected = manifest.files.filter(concerned)
  const found = isKnown ? digests : await attempt(`read ${path}`, () => digests(expected.map(({ name }) => name)))
  const faults = compare(expected, found)
  if (faults.length > 0) throw corrupt(path, faults)
}

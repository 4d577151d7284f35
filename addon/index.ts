/** The only loader of cedana.node. */
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Native } from './native.js'

export type * from './native.js'

export const ARCHIVE_FORMATS = ['tar', 'gzip', 'lz4', 'zlib', 'zstd'] as const

/** A system call, or a conversation of the addon, that failed. `op` says which, with the name of its object where that helps. */
export class NativeError extends Error {
  override readonly name = 'NativeError'
  readonly op: string
  readonly errno: number
  /** Name of errno, e.g. `ENOENT`. */
  readonly code: string

  constructor(message: string, failure: { readonly op: string; readonly errno: number; readonly code: string }) {
    super(message)
    this.op = failure.op
    this.errno = failure.errno
    this.code = failure.code
  }
}

/** Forgetting a function here does not compile; a binary that lacks one does not load. */
const FUNCTIONS: Record<keyof Native, true> = {
  pidfdOpen: true,
  pidfdSend: true,
  pidfdWait: true,
  pidfdClose: true,
  spawn: true,
  pipe: true,
  scanTree: true,
  scanProcess: true,
  scanStats: true,
  scanProcesses: true,
  connectorOpen: true,
  connectorWatch: true,
  connectorNext: true,
  connectorClose: true,
  peerCredentials: true,
  openAs: true,
  mkdirAs: true,
  accessAs: true,
  sdNotify: true,
  syncFilesystem: true,
  renameNoReplace: true,
  criuSession: true,
  criuRequest: true,
  criuClose: true,
  criuOptions: true,
  pageSocket: true,
  pageServerOpen: true,
  pageServerPrepare: true,
  pageServerReadAhead: true,
  pageServerProgress: true,
  pageServerFinish: true,
  pageServerAbort: true,
  digestFiles: true,
  digestBytes: true,
  sha256: true,
  packOpen: true,
  packAdd: true,
  packProgress: true,
  packFinish: true,
  packAbort: true,
  cancellation: true,
  cancel: true,
  imagesMake: true,
  imagesClear: true,
  imagesClose: true,
  memoryPlan: true,
  memoryWriter: true,
  memoryWriterStart: true,
  memoryWriterStop: true,
  unpackArchive: true,
  unpackShards: true,
  copyImages: true,
  archiveCanSkip: true,
  archiveRead: true,
  archiveList: true,
  cudaOpen: true,
  cudaFacts: true,
  cudaProcess: true,
  cudaLock: true,
  cudaCheckpoint: true,
  cudaRestore: true,
  cudaUnlock: true,
  cudaUses: true,
}

type Callable = (...args: unknown[]) => unknown

/** The package's folder, both from TypeScript source (addon/) and from the bundle (dist/). */
function packageRoot(): string {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    const manifest = join(folder, 'package.json')
    if (existsSync(manifest) && (JSON.parse(readFileSync(manifest, 'utf8')) as { name?: string }).name === 'cedana') return folder
    if (folder === dirname(folder)) throw new Error(`no package.json of cedana above ${import.meta.url}`)
  }
}

function rethrow(thrown: unknown): never {
  if (thrown instanceof Error && 'op' in thrown && 'errno' in thrown && 'code' in thrown) {
    throw new NativeError(thrown.message, { op: String(thrown.op), errno: Number(thrown.errno), code: String(thrown.code) })
  }
  throw thrown
}

/** Native errors have no stack of ours and no class; this gives them both. */
function withNativeErrors(call: Callable): Callable {
  return (...args) => {
    try {
      const result = call(...args)
      return result instanceof Promise ? result.catch(rethrow) : result
    } catch (thrown) {
      return rethrow(thrown)
    }
  }
}

function load(path: string): Native {
  if (!existsSync(path)) throw new Error(`${path} is missing: run npm run build:native`)
  const binary = createRequire(import.meta.url)(path) as Record<string, unknown>
  const functions = Object.keys(FUNCTIONS).map((name) => {
    const call = binary[name]
    if (typeof call !== 'function') throw new Error(`${path} is of another version (no ${name}): run npm run build:native`)
    return [name, withNativeErrors(call as Callable)]
  })
  return Object.freeze(Object.fromEntries(functions)) as Native
}

const root = packageRoot()
const output = join(root, 'build', 'Release')

export const native: Native = load(join(output, 'cedana.node'))

/** The supervisor executable of a job. */
export const shimPath = join(output, 'cedana-shim')

/** What the child process runs that calls the CUDA driver. */
export const cudaChildPath = join(root, 'dist', 'cuda-child.cjs')

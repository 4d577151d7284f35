/** CRIU's page server, kept by the addon: pages go from CRIU to the disk, or to a packer, without passing through JavaScript. */
import { native } from '../../../addon/index.js'
import type { NativeFileDigest, PackerHandle, PageServerOptions, PageServerProgress } from '../../../addon/native.js'
import { CedanaError } from '../../plugins/contract/errors.js'
import { failure } from '../images/failures.js'
import type { Packer } from '../images/files.js'

export interface PageServer {
  /** Resolves when memory for so many bytes, or as much as may be had, is touched. */
  prepare(bytes: number): Promise<void>
  /** The tree has been stopped, and CRIU has not touched it yet: its memory is read meanwhile. */
  readAhead(): void
  progress(): PageServerProgress
  /** Resolves when every page is durable. Throws NO_SPACE and the like. */
  finish(): Promise<{ readonly files: readonly NativeFileDigest[]; readonly receivedBytes: number; readonly zeroBytes: number }>
  /** Why the server stopped taking pages, when CRIU saw no more than a broken pipe. */
  failure(): Promise<CedanaError | undefined>
  abort(): Promise<void>
}

interface PageServerRequest extends Omit<PageServerOptions, 'packer'> {
  /** undefined: pages go to files of the directory. */
  readonly packer: Packer | undefined
}

export function openPageServer({ packer, ...options }: PageServerRequest): PageServer {
  const server = native.pageServerOpen({ ...options, packer: (packer?.handle ?? null) as PackerHandle | null })
  let finishing: ReturnType<PageServer['finish']> | undefined
  const finish = (): ReturnType<PageServer['finish']> => {
    finishing ??= native.pageServerFinish(server).catch((thrown: unknown) => {
      throw failure(thrown, 'write the pages')
    })
    return finishing
  }
  return {
    prepare: (bytes) => native.pageServerPrepare(server, bytes).catch(() => undefined),
    readAhead: () => {
      native.pageServerReadAhead(server)
    },
    progress: () => native.pageServerProgress(server),
    finish,
    failure: () =>
      finish().then(
        () => undefined,
        (thrown: unknown) => CedanaError.from(thrown),
      ),
    abort: () => native.pageServerAbort(server),
  }
}

/** CRIU's page server, kept by the addon: pages go from CRIU to the disk without passing through JavaScript. */
import { native } from '../../../addon/index.js'
import type { NativeFileDigest, PageServerOptions, PageServerProgress } from '../../../addon/native.js'
import { CedanaError } from '../../plugins/contract/errors.js'
import { failure } from '../images/failures.js'

export interface PageServer {
  progress(): PageServerProgress
  /** Resolves when every page is durable. Throws NO_SPACE and the like. */
  finish(): Promise<{ readonly files: readonly NativeFileDigest[]; readonly receivedBytes: number; readonly zeroBytes: number }>
  /** Why the server stopped taking pages, when CRIU saw no more than a broken pipe. */
  failure(): Promise<CedanaError | undefined>
  abort(): Promise<void>
}

export function openPageServer(options: PageServerOptions): PageServer {
  const server = native.pageServerOpen(options)
  let finishing: ReturnType<PageServer['finish']> | undefined
  const finish = (): ReturnType<PageServer['finish']> => {
    finishing ??= native.pageServerFinish(server).catch((thrown: unknown) => {
      throw failure(thrown, 'write the pages')
    })
    return finishing
  }
  return {
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

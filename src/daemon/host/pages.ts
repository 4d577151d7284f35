/** CRIU's page server, kept by the addon: pages go from CRIU to the disk without passing through JavaScript. */
import { closeSync } from 'node:fs'
import { native } from '../../../addon/index.js'
import type { NativeFileDigest, PageServerOptions, PageServerProgress } from '../../../addon/native.js'
import { CedanaError } from '../../plugins/contract/errors.js'
import { failure } from '../images/failures.js'
import type { PageSocket } from './criu.js'

export interface PageServer extends PageSocket {
  progress(): PageServerProgress
  /** Resolves when every page is durable. Throws NO_SPACE and the like. */
  finish(): Promise<{ readonly files: readonly NativeFileDigest[]; readonly receivedBytes: number; readonly zeroBytes: number }>
  /** Why the server stopped taking pages, when CRIU saw no more than a broken pipe. */
  failure(): Promise<CedanaError | undefined>
  abort(): Promise<void>
}

export function openPageServer(options: PageServerOptions): PageServer {
  const { server, socket } = native.pageServerOpen(options)
  let finishing: ReturnType<PageServer['finish']> | undefined
  let taken = false
  const finish = (): ReturnType<PageServer['finish']> => {
    finishing ??= native.pageServerFinish(server).catch((thrown: unknown) => {
      throw failure(thrown, 'write the pages')
    })
    return finishing
  }
  return {
    get socket() {
      taken = true
      return socket
    },
    progress: () => native.pageServerProgress(server),
    finish,
    failure: () =>
      finish().then(
        () => undefined,
        (thrown: unknown) => CedanaError.from(thrown),
      ),
    abort: async () => {
      if (!taken) closeSync(socket)
      await native.pageServerAbort(server)
    },
  }
}

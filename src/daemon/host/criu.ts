/**
 * CRIU, driven over the RPC of `criu swrk`: found once, probed once, one child per request.
 * A dump is handed out at the moment CRIU has written everything and holds the tree frozen; the caller then completes it or rolls it back.
 */
import { closeSync } from 'node:fs'
import { native, NativeError } from '../../../addon/index.js'
import type { CriuField, CriuResponse, CriuSessionHandle, PidfdHandle } from '../../../addon/native.js'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { CriuOptions } from '../../plugins/contract/plan.js'

export interface CriuBinary {
  readonly path: string
  /** What to run: the path, or what a wrapper there would run. */
  readonly command: readonly [string, ...string[]]
  /** major × 10000 + minor × 100 + sublevel, as CRIU counts. */
  readonly version: number
}

/** Descriptor of the RPC socket in the CRIU process, and of the page socket. */
const RPC_FD = 3
const PAGES_FD = 4

/** A dump that has reached its last moment: images written, tree frozen, CRIU waiting for the word. */
export interface FrozenDump {
  /** Lets CRIU finish: the tree dies, or runs on with leave_running. */
  complete(): Promise<void>
  /** Refuses: CRIU lets the tree run on and undoes what it did. */
  rollback(): Promise<void>
}

export function parseVersion(text: string): number {
  const match = /(\d+)\.(\d+)(?:\.(\d+))?/.exec(text)
  if (!match) return 0
  return Number(match[1]) * 10000 + Number(match[2]) * 100 + Number(match[3] ?? 0)
}

export function formatVersion(version: number): string {
  const [major, minor, sublevel] = [Math.floor(version / 10000), Math.floor(version / 100) % 100, version % 100]
  return sublevel === 0 ? `${major}.${minor}` : `${major}.${minor}.${sublevel}`
}

/** All names CRIU knows, for the strict check of --criu-opts. */
export const criuOptionFields = (): readonly CriuField[] => native.criuOptions()

function failure(action: 'dump' | 'restore', response: CriuResponse): CedanaError {
  const what = response.message ?? (response.errno === 0 ? 'no reason given' : `errno ${response.errno}`)
  const code = action === 'dump' ? 'CRIU_DUMP_FAILED' : 'CRIU_RESTORE_FAILED'
  return new CedanaError(code, `criu ${action} failed: ${what}`, { detail: { errno: response.errno } })
}

function died(action: 'dump' | 'restore', cause: unknown): CedanaError {
  const code = action === 'dump' ? 'CRIU_DUMP_FAILED' : 'CRIU_RESTORE_FAILED'
  return new CedanaError(code, `criu died during the ${action}`, { cause })
}

/** The addon names the option: `opts.ghost_limit: not a number`. */
const badOption = (thrown: unknown): CedanaError | undefined =>
  thrown instanceof NativeError && thrown.code === 'EINVAL'
    ? new CedanaError('BAD_OPTIONS', `bad CRIU option: ${thrown.op.replace(/^opts\./, '')}`, { cause: thrown })
    : undefined

const connectionLost = (thrown: unknown): boolean =>
  thrown instanceof NativeError && ['ECONNRESET', 'EPIPE', 'ECANCELED'].includes(thrown.code)

interface DumpHooks {
  /** Nothing is frozen before this is resolved; what CRIU does until then goes on. */
  readonly isReady?: Promise<void> | undefined
  /** The whole tree stands still, and nothing in it has been changed yet. */
  readonly onStopped?: (() => void) | undefined
}

/** A CRIU that is loading, or waits for its request: started as soon as a dump is likely, since loading takes as long as the preparations. */
export class DumpWorker {
  #pagesFd: number | undefined
  #closing: Promise<void> | undefined

  private constructor(
    private readonly session: CriuSessionHandle,
    private readonly worker: PidfdHandle,
    pagesFd: number,
  ) {
    this.#pagesFd = pagesFd
  }

  static start(criu: CriuBinary, searchPath: string): DumpWorker {
    const { session, peerFd } = native.criuSession()
    const pages = native.pageSocket()
    try {
      const argv = [...criu.command, 'swrk', String(RPC_FD)]
      const { child } = native.spawn(argv, [`PATH=${searchPath}`], [-1, -1, -1, peerFd, pages.peerFd], true)
      return new DumpWorker(session, child, pages.socketFd)
    } catch (cause) {
      closeSync(pages.socketFd)
      native.criuClose(session)
      throw new CedanaError('HOST_UNFIT', `cannot run criu at ${criu.path}`, { cause })
    } finally {
      closeSync(peerFd)
      closeSync(pages.peerFd)
    }
  }

  /** Our end of the page socket, for the page server that takes it over. */
  takePages(): number {
    const fd = this.#pagesFd
    if (fd === undefined) throw new CedanaError('BUG', 'the page socket is taken')
    this.#pagesFd = undefined
    return fd
  }

  /**
   * Dumps up to the point of no return. Resolves when everything is written and the tree is frozen, rejects (tree running on) when CRIU refuses.
   * Aborting the signal before that rolls back.
   */
  async dump(options: CriuOptions, signal: AbortSignal, { isReady, onStopped }: DumpHooks = {}): Promise<FrozenDump> {
    let verdict: (go: boolean) => void = () => undefined
    const decided = new Promise<boolean>((resolve) => (verdict = resolve))
    let reached: () => void = () => undefined
    const frozen = new Promise<void>((resolve) => (reached = resolve))
    const whenWritten = async (): Promise<void> => {
      if (signal.aborted) throw new CedanaError('CANCELLED', 'dump cancelled', { cause: signal.reason })
      reached()
      if (!(await decided)) throw new CedanaError('CANCELLED', 'dump rolled back')
    }
    const finished = native
      .criuRequest(
        this.session,
        'DUMP',
        { ...options, notify_scripts: true, ps: { fd: PAGES_FD } },
        async (script) => {
          if (script === 'pre-dump') await isReady
          if (script === 'query-ext-files') onStopped?.()
          if (script === 'post-dump') await whenWritten()
        },
        [...(isReady ? ['pre-dump'] : []), ...(onStopped ? ['query-ext-files'] : []), 'post-dump'],
      )
      .then(
        (response) => {
          if (!response.success) throw failure('dump', response)
        },
        (thrown: unknown) => {
          throw badOption(thrown) ?? (connectionLost(thrown) ? died('dump', thrown) : thrown)
        },
      )
      .finally(() => this.close())
    finished.catch(() => undefined)

    const abort = (): void => {
      native.criuClose(this.session)
    }
    signal.addEventListener('abort', abort)
    try {
      await Promise.race([frozen, finished])
    } catch (thrown) {
      if (signal.aborted) throw new CedanaError('CANCELLED', 'dump cancelled', { cause: thrown })
      throw thrown
    } finally {
      signal.removeEventListener('abort', abort)
    }
    return {
      complete: async () => {
        verdict(true)
        await finished
      },
      rollback: async () => {
        verdict(false)
        await finished.catch(() => undefined)
      },
    }
  }

  /** CRIU undoes what it has not finished, and ends: it is never killed, which would undo nothing. Resolves when it has. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    native.criuClose(this.session)
    if (this.#pagesFd !== undefined) closeSync(this.takePages())
    await native.pidfdWait(this.worker)
    native.pidfdClose(this.worker)
  }
}

export interface RestoreSession {
  /** CRIU's end: descriptor 3 of the CRIU that the shim starts. The caller closes it once the shim has it. */
  readonly peerFd: number
  /** Sends the request; resolves with the PID of the restored root, running. */
  restore(options: CriuOptions, hooks: RestoreHooks): Promise<number>
  /** Makes CRIU undo a restore that has not finished. */
  close(): void
}

export interface RestoreHooks {
  /** Before CRIU creates anything. A rejection makes it undo. */
  onReady(): Promise<void>
  /** When the whole tree is there, below this process, and nothing of it has run. */
  onBuilt(rootPid: number): Promise<void>
}

/** The restore is driven from here, but CRIU itself is a child of the shim, which becomes the parent of the restored root. */
export function restoreSession(signal: AbortSignal): RestoreSession {
  const { session, peerFd }: { session: CriuSessionHandle; peerFd: number } = native.criuSession()
  const close = (): void => {
    native.criuClose(session)
  }
  return {
    peerFd,
    close,
    restore: async (options, hooks) => {
      signal.addEventListener('abort', close)
      let refused: unknown
      try {
        const response = await native.criuRequest(
          session,
          'RESTORE',
          { ...options, notify_scripts: true, rst_sibling: true },
          async (script, pid) => {
            try {
              if (script === 'pre-restore') await hooks.onReady()
              if (script === 'post-restore') await hooks.onBuilt(pid ?? 0)
              if (signal.aborted) throw new CedanaError('CANCELLED', 'restore cancelled', { cause: signal.reason })
            } catch (thrown) {
              refused ??= thrown
              throw thrown
            }
          },
          ['pre-restore', 'post-restore'],
        )
        if (refused !== undefined) throw CedanaError.from(refused)
        if (!response.success || response.pid === null) throw failure('restore', response)
        return response.pid
      } catch (thrown) {
        if (refused !== undefined) throw CedanaError.from(refused)
        if (signal.aborted) throw new CedanaError('CANCELLED', 'restore cancelled', { cause: thrown })
        throw badOption(thrown) ?? (connectionLost(thrown) ? died('restore', thrown) : thrown)
      } finally {
        signal.removeEventListener('abort', close)
        close()
      }
    },
  }
}

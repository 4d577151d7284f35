/** When a process executes a program, from the kernel's proc connector: one for all who wait, open for as long as there is one. */
import { native, NativeError } from '../../../addon/index.js'
import type { ConnectorHandle } from '../../../addon/native.js'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Log } from '../../plugins/contract/host.js'

/** For some thousand execs that happen while the machine lets nobody read. */
const RECEIVE_BYTES = 8 << 20

type Listener = () => void

export class Execs {
  readonly #listeners = new Map<number, Set<Listener>>()
  #connector: Promise<ConnectorHandle | undefined> | undefined
  #refusalIsTold = false

  /** Undefined where the kernel tells us nothing. */
  async watch(pid: number, listener: Listener, log: Log): Promise<Disposable | undefined> {
    const listeners = this.#listeners.get(pid) ?? new Set()
    this.#listeners.set(pid, listeners.add(listener))
    this.#connector ??= this.#open(log)
    const connector = await this.#connector
    if (!connector) {
      this.#forget(pid, listener)
      return undefined
    }
    native.connectorWatch(connector, pid, true)
    return {
      [Symbol.dispose]: () => {
        if (!this.#forget(pid, listener)) return
        native.connectorWatch(connector, pid, false)
        if (this.#listeners.size > 0) return
        this.#connector = undefined
        native.connectorClose(connector)
      },
    }
  }

  /** Whether that was the last one of the process. */
  #forget(pid: number, listener: Listener): boolean {
    const listeners = this.#listeners.get(pid)
    if (listeners?.delete(listener) !== true || listeners.size > 0) return false
    return this.#listeners.delete(pid)
  }

  async #open(log: Log): Promise<ConnectorHandle | undefined> {
    try {
      const connector = await native.connectorOpen(RECEIVE_BYTES)
      void this.#tell(connector)
      return connector
    } catch (thrown) {
      this.#connector = undefined
      if (!this.#refusalIsTold)
        log.debug({ err: CedanaError.from(thrown).message }, 'no process events: containers are watched by their files')
      this.#refusalIsTold = true
      return undefined
    }
  }

  async #tell(connector: ConnectorHandle): Promise<void> {
    try {
      for (;;) {
        const { execs, overrun } = await native.connectorNext(connector)
        const pids = overrun ? [...this.#listeners.keys()] : execs.map(({ pid }) => pid)
        for (const pid of pids) for (const listener of this.#listeners.get(pid) ?? []) listener()
      }
    } catch (thrown) {
      if (thrown instanceof NativeError && thrown.code === 'ECANCELED') return
      throw thrown
    }
  }
}

/** The host of a plugin in another process: as functions, on the side of the daemon, and made of them again on the plugin's. */
import type { CudaDriver } from '../../plugins/contract/cuda.js'
import type { Host, Log, Wakeups } from '../../plugins/contract/host.js'
import type { LaunchContext } from '../../plugins/contract/runtime.js'
import type { Callable } from './peer.js'

type Async<F> = F extends (...args: infer A) => infer R ? (...args: A) => Promise<Awaited<R>> : never
type Methods<T, K extends keyof T> = { readonly [P in K]: Async<T[P]> }

const CUDA = ['facts', 'look', 'lock', 'checkpoint', 'restore', 'unlock', 'uses'] as const
const PLAIN = ['identify', 'brief', 'inspect', 'kill', 'stopTree', 'continueTree', 'exists', 'readText'] as const

/** Waits are numbered by the plugin, which need not wait for an answer to go on with one. `signal`: where it is not that of the host. */
export interface HostService extends Methods<Host, (typeof PLAIN)[number]> {
  readonly cuda: Methods<CudaDriver, (typeof CUDA)[number]>
  log(level: keyof Log, fields: object, message: string): Promise<void>
  exec(signal: AbortSignal | undefined, ...args: Parameters<Host['exec']>): ReturnType<Host['exec']>
  delegate(signal: AbortSignal | undefined, runtime: string, verb: string, ...args: readonly unknown[]): Promise<unknown>
  openWakeups(wait: number, signal: AbortSignal | undefined): Promise<void>
  closeWakeups(wait: number): Promise<void>
  directory(wait: number, path: string): Promise<void>
  awaitExec(wait: number, ...args: Parameters<Wakeups['exec']>): Promise<void>
  nextWakeup(wait: number): Promise<void>
}

const methodsOf = <T extends object, K extends keyof T & string>(object: T, names: readonly K[]): Methods<T, K> => {
  const method = (name: K) => (object[name] as Callable).bind(object)
  return Object.fromEntries(names.map((name) => [name, async (...args: readonly unknown[]) => method(name)(...args)])) as never
}

/** Of one call, at a time: the others wait for their turn. */
const MAX_PROGRAMS = 8

class Turns {
  #free = MAX_PROGRAMS
  readonly #waiting: (() => void)[] = []

  async take<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--
    else await new Promise<void>((resolve) => this.#waiting.push(resolve))
    try {
      return await work()
    } finally {
      const next = this.#waiting.shift()
      if (next) next()
      else this.#free++
    }
  }
}

/** What of it is still open when the scope ends is closed. */
export function serveHost(host: Host, scope: { add(end: () => void): void }): HostService {
  const waits = new Map<number, Wakeups>()
  const wait = (id: number): Wakeups => {
    const found = waits.get(id)
    if (!found) throw new Error('these wakeups are closed')
    return found
  }
  const close = (id: number): void => {
    waits.get(id)?.[Symbol.dispose]()
    waits.delete(id)
  }
  scope.add(() => [...waits.keys()].forEach(close))
  const turns = new Turns()
  const having = (signal: AbortSignal | undefined): Host => (signal === undefined ? host : { ...host, signal })
  return {
    ...methodsOf(host, PLAIN),
    cuda: methodsOf(host.cuda, CUDA),
    log: async (level, fields, message) => host.log[level](fields, message),
    exec: (signal, ...args) => turns.take(() => having(signal).exec(...args)),
    delegate: (signal, ...args) => having(signal).delegate(...args),
    openWakeups: async (id, signal) => void waits.set(id, having(signal).wakeups()),
    closeWakeups: async (id) => close(id),
    directory: async (id, path) => wait(id).directory(path),
    awaitExec: (id, ...args) => wait(id).exec(...args),
    nextWakeup: (id) => wait(id).next(),
  }
}

/** The other side of it, for the length of one call. */
export function hostOver(service: HostService, signal: AbortSignal): Host {
  let waits = 0
  const other = (own: AbortSignal): AbortSignal | undefined => (own === signal ? undefined : own)
  // Whatever becomes of it, it becomes known by the next call that is answered.
  const tell = (told: Promise<unknown>): void => void told.catch(() => undefined)
  const log =
    (level: keyof Log): Log['info'] =>
    (fields, message) =>
      tell(service.log(level, fields, message))
  return {
    log: { debug: log('debug'), info: log('info'), warn: log('warn') },
    signal,
    cuda: service.cuda,
    ...methodsOf(service, PLAIN),
    // These are of this host or of one made of it, which may have another signal.
    exec(...args) {
      return service.exec(other(this.signal), ...args)
    },
    delegate(...args) {
      return service.delegate(other(this.signal), ...args) as Promise<never>
    },
    wakeups() {
      const id = waits++
      const opened = service.openWakeups(id, other(this.signal))
      tell(opened)
      return {
        directory: (path) => tell(service.directory(id, path)),
        exec: async (...args) => service.awaitExec(id, ...args),
        next: async () => service.nextWakeup(id),
        [Symbol.dispose]: () => tell(service.closeWakeups(id)),
      }
    },
  }
}

/** A context of `launch`, as functions. */
export const serveLaunch = (context: LaunchContext): object => ({
  ...context,
  read: async (path: string) => {
    const parts = context.read(path)[Symbol.asyncIterator]()
    return { next: () => parts.next(), end: async () => parts.return?.() }
  },
})

interface Reading {
  next(): Promise<IteratorResult<Uint8Array, undefined>>
  end(): Promise<unknown>
}

export function launchOver(context: Omit<LaunchContext, 'read'> & { read(path: string): Promise<Reading> }): LaunchContext {
  return {
    ...context,
    read: async function* (path) {
      const parts = await context.read(path)
      try {
        for (let part = await parts.next(); part.done !== true; part = await parts.next()) yield part.value
      } finally {
        await parts.end()
      }
    },
  }
}

/**
 * One of two processes that call each other's functions over a channel which copies plain data. A function in what is handed over reaches the other side
 * as one that calls back; errors keep what they are, signals go on being signals.
 */
import { CedanaError, ERRORS } from '../../plugins/contract/errors.js'

export type Callable = (...args: readonly unknown[]) => unknown

type Message =
  | { readonly call: number; readonly to: number; readonly args: unknown }
  | { readonly answer: number; readonly value: unknown }
  | { readonly answer: number; readonly error: unknown }
  | { readonly abort: number; readonly reason: unknown }
  | { readonly release: number }

/** Keys of what stands for something that is no plain data. No option and no field of a plan is called so. */
const FUNCTION = '\0function'
const YOURS = '\0yours'
const SIGNAL = '\0signal'
const ERROR = '\0error'
const MAX_CAUSES = 8

/** What is handed over for the length of one call. */
export class Scope implements Disposable {
  readonly #ends: (() => void)[] = []
  add(end: () => void): void {
    this.#ends.push(end)
  }
  [Symbol.dispose](): void {
    for (const end of this.#ends.splice(0)) end()
  }
}

interface Pending {
  readonly resolve: (value: unknown) => void
  readonly reject: (error: Error) => void
}

export class Peer {
  readonly #exports = new Map<number, Callable>()
  readonly #pending = new Map<number, Pending>()
  readonly #signals = new Map<number, AbortController>()
  /** Functions of the other side, and what it calls them. */
  readonly #theirs = new WeakMap<object, number>()
  readonly #forgotten = new FinalizationRegistry<number>((id) => {
    this.#held--
    this.#tell({ release: id })
    this.onRelease()
  })
  #next = 1
  #held = 0
  #closed: Error | undefined

  /** `root`: what the other side can call to begin with. */
  constructor(
    private readonly post: (message: unknown) => void,
    root: Callable,
    private readonly onRelease: () => void = () => undefined,
  ) {
    this.#exports.set(0, root)
  }

  /** How many functions of the other side, got as results, could still be called. */
  get held(): number {
    return this.#held
  }

  /** The root of the other side. What is in `args` is there for the other side until the scope ends, which is the end of the call unless one is given. */
  async call(args: readonly unknown[], scope?: Scope): Promise<unknown> {
    return this.#call(0, args, scope)
  }

  /** From now on nothing comes back. */
  close(error: Error): void {
    this.#closed ??= error
    for (const { reject } of this.#pending.values()) reject(this.#closed)
    this.#pending.clear()
  }

  receive(message: unknown): void {
    if (typeof message !== 'object' || message === null) return
    const known = message as Message
    if ('call' in known) void this.#serve(known)
    else if ('answer' in known) this.#settle(known)
    else if ('abort' in known) this.#signals.get(known.abort)?.abort(this.#decode(known.reason))
    else if ('release' in known) this.#exports.delete(known.release)
  }

  async #call(to: number, args: readonly unknown[], given?: Scope): Promise<unknown> {
    if (this.#closed) throw this.#closed
    const scope = given ?? new Scope()
    const call = this.#next++
    try {
      return await new Promise((resolve, reject) => {
        this.post({ call, to, args: this.#encode(args, scope) } satisfies Message)
        this.#pending.set(call, { resolve, reject })
      })
    } finally {
      this.#pending.delete(call)
      if (given === undefined) scope[Symbol.dispose]()
    }
  }

  #settle(answer: Extract<Message, { answer: number }>): void {
    const pending = this.#pending.get(answer.answer)
    if ('error' in answer) pending?.reject(this.#decode(answer.error) as Error)
    else if (pending) pending.resolve(this.#decode(answer.value, { keep: true }))
  }

  async #serve({ call, to, args }: Extract<Message, { call: number }>): Promise<void> {
    using scope = new Scope()
    try {
      const target = this.#exports.get(to)
      if (!target) throw new CedanaError('CANCELLED', 'the call that this belongs to is over')
      const value = await target(...(this.#decode(args, { scope }) as readonly unknown[]))
      this.post({ answer: call, value: this.#encode(value) } satisfies Message)
    } catch (thrown) {
      this.#tell({ answer: call, error: this.#encodeError(thrown) })
    }
  }

  /** Nobody waits for it. */
  #tell(message: Message): void {
    if (this.#closed) return
    try {
      this.post(message)
    } catch {
      // The other side has gone, which is told elsewhere.
    }
  }

  /** Without a scope it stays until the other side has forgotten it. */
  #export(callable: Callable, scope: Scope | undefined): number {
    const id = this.#next++
    this.#exports.set(id, callable)
    scope?.add(() => this.#exports.delete(id))
    return id
  }

  #encode(value: unknown, scope?: Scope): unknown {
    if (typeof value === 'function') {
      const id = this.#theirs.get(value)
      return id === undefined ? { [FUNCTION]: this.#export(value as Callable, scope) } : { [YOURS]: id }
    }
    if (typeof value !== 'object' || value === null) return value
    if (Array.isArray(value)) return value.map((one) => this.#encode(one, scope))
    if (value instanceof Error) return this.#encodeError(value)
    if (value instanceof AbortSignal) return this.#encodeSignal(value, scope)
    const prototype: unknown = Object.getPrototypeOf(value)
    if (prototype !== null && prototype !== Object.prototype) return value
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, this.#encode(one, scope)]))
  }

  #encodeSignal(signal: AbortSignal, scope: Scope | undefined): unknown {
    const id = this.#next++
    const onAbort = (): void => this.#tell({ abort: id, reason: this.#encodeError(signal.reason) })
    signal.addEventListener('abort', onAbort)
    scope?.add(() => signal.removeEventListener('abort', onAbort))
    return { [SIGNAL]: id, reason: signal.aborted ? this.#encodeError(signal.reason) : undefined }
  }

  #encodeError(thrown: unknown, depth = 0): unknown {
    if (!(thrown instanceof Error)) return { [ERROR]: { name: 'Error', message: String(thrown) } }
    const { name, message, stack } = thrown
    const { code, detail, hint, suppressed } = thrown as Partial<CedanaError>
    const nested = (one: unknown): unknown => (one === undefined || depth >= MAX_CAUSES ? undefined : this.#encodeError(one, depth + 1))
    const ours = { code, detail: plain(detail), hint, suppressed: suppressed?.map(nested) }
    return { [ERROR]: { name, message, stack, cause: nested(thrown.cause), ...(name === 'CedanaError' ? ours : {}) } }
  }

  #decode(value: unknown, into: { readonly scope?: Scope; readonly keep?: boolean } = {}): unknown {
    if (typeof value !== 'object' || value === null) return value
    if (Array.isArray(value)) return value.map((one) => this.#decode(one, into))
    const prototype: unknown = Object.getPrototypeOf(value)
    if (prototype !== null && prototype !== Object.prototype) return value
    if (FUNCTION in value) return this.#decodeFunction(value[FUNCTION] as number, into.keep === true)
    if (YOURS in value) return this.#exports.get(value[YOURS] as number) ?? this.#decodeFunction(-1, false)
    if (ERROR in value) return this.#decodeError(value[ERROR] as Partial<CedanaError>)
    if (SIGNAL in value) return this.#decodeSignal(value as never, into.scope)
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, this.#decode(one, into)]))
  }

  #decodeFunction(id: number, keep: boolean): Callable {
    const proxy: Callable = (...args) => this.#call(id, args)
    this.#theirs.set(proxy, id)
    if (keep) {
      this.#held++
      this.#forgotten.register(proxy, id)
    }
    return proxy
  }

  #decodeSignal({ [SIGNAL]: id, reason }: { readonly [SIGNAL]: number; readonly reason: unknown }, scope: Scope | undefined): AbortSignal {
    const controller = new AbortController()
    if (reason !== undefined) controller.abort(this.#decode(reason))
    this.#signals.set(id, controller)
    scope?.add(() => this.#signals.delete(id))
    return controller.signal
  }

  #decodeError({ name, message = '', stack, cause, code, detail, hint, suppressed }: Partial<CedanaError>): Error {
    const context = cause === undefined ? {} : { cause: this.#decode(cause) }
    const error =
      name === 'CedanaError' && code !== undefined && code in ERRORS
        ? new CedanaError(code, message, { ...context, ...(detail && { detail }), ...(hint !== undefined && { hint }) })
        : Object.assign(new Error(message, context), { name })
    if (error instanceof CedanaError) error.suppressed.push(...(suppressed ?? []).map((one) => CedanaError.from(this.#decode(one))))
    if (stack !== undefined) error.stack = stack
    return error
  }
}

/** The details of an error are facts for programs: what is none of JSON is left out. */
const plain = (detail: unknown): unknown => (detail === undefined ? undefined : (JSON.parse(JSON.stringify(detail)) as unknown))

/** What an attacher sends: standard input as it is wanted, its end, and changes of the window. Read only as fast as the job takes it. */
import type { AttachInput, WindowSize } from '../../daemon/api/engine.js'

export class InputSource implements AsyncIterableIterator<AttachInput> {
  private readonly waiting: AttachInput[] = []
  private take: ((result: IteratorResult<AttachInput>) => void) | undefined
  private isClosed = false

  /** `filter`: what of the bytes goes to the job; undefined: all. */
  constructor(
    private readonly stdin: NodeJS.ReadStream,
    private readonly filter: (bytes: Uint8Array) => Uint8Array = (bytes) => bytes,
  ) {
    stdin.on('data', this.onData).on('end', this.onEnd).on('error', this.onEnd)
    stdin.pause()
  }

  private readonly onData = (chunk: Buffer | string): void => {
    this.stdin.pause()
    const bytes = this.filter(typeof chunk === 'string' ? Buffer.from(chunk) : chunk)
    if (bytes.length > 0) this.push({ kind: 'stdin', bytes })
    else if (this.take !== undefined) this.stdin.resume()
  }

  private readonly onEnd = (): void => this.push({ kind: 'eof' })

  resize(size: WindowSize): void {
    this.push({ kind: 'window', size })
  }

  private push(input: AttachInput): void {
    if (this.isClosed) return
    const { take } = this
    this.take = undefined
    if (take === undefined) this.waiting.push(input)
    else take({ value: input, done: false })
  }

  next(): Promise<IteratorResult<AttachInput>> {
    const value = this.waiting.shift()
    if (value !== undefined) return Promise.resolve({ value, done: false })
    if (this.isClosed) return Promise.resolve({ value: undefined, done: true })
    return new Promise((resolve) => {
      this.take = resolve
      this.stdin.resume()
    })
  }

  /** Lets go of standard input: nothing of this keeps the process alive. */
  close(): void {
    this.isClosed = true
    this.stdin.off('data', this.onData).off('end', this.onEnd).off('error', this.onEnd)
    this.stdin.pause()
    // A file as standard input has no such thing.
    if ('unref' in this.stdin) this.stdin.unref()
    this.take?.({ value: undefined, done: true })
    this.take = undefined
  }

  return(): Promise<IteratorResult<AttachInput>> {
    this.close()
    return Promise.resolve({ value: undefined, done: true })
  }

  [Symbol.asyncIterator](): this {
    return this
  }
}

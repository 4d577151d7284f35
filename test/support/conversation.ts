/** A child process one talks with: input in pieces, output as it comes, and its end. */
import { spawn, type SpawnOptions } from 'node:child_process'
import { join } from 'node:path'
import type { Writable } from 'node:stream'

const TERMINAL = join(import.meta.dirname, 'terminal.py')

export interface Exit {
  /** As a shell sees it: 128+N when signal N ended it. */
  readonly code: number
}

export class Conversation {
  stdout = ''
  stderr = ''
  readonly exit: Promise<Exit>
  readonly pid: number
  #ended = false
  #listeners = new Set<() => void>()
  readonly #child

  constructor(argv: readonly string[], options: SpawnOptions = {}, extraPipes = 0) {
    const [command = '', ...args] = argv
    const child = spawn(command, args, {
      ...options,
      stdio: ['pipe', 'pipe', 'pipe', ...Array.from({ length: extraPipes }, () => 'pipe' as const)],
    })
    this.#child = child
    this.pid = child.pid ?? 0
    const gather = (stream: 'stdout' | 'stderr') => {
      child[stream].setEncoding('utf8').on('data', (text: string) => {
        this[stream] += text
        this.#wake()
      })
    }
    gather('stdout')
    gather('stderr')
    child.stdin.on('error', () => undefined) // it may have ended before it read everything
    this.exit = new Promise((resolve, reject) => {
      child.on('error', reject)
      child.on('close', (code, signal) => {
        this.#ended = true
        resolve({ code: code ?? 128 + (SIGNALS[signal ?? ''] ?? 0) })
        this.#wake()
      })
    })
    this.exit.catch(() => undefined)
  }

  #wake(): void {
    for (const listener of this.#listeners) listener()
  }

  get ended(): boolean {
    return this.#ended
  }

  type(text: string): void {
    this.#child.stdin.write(text)
  }

  endInput(): void {
    this.#child.stdin.end()
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name)
  }

  /** Waits until standard output matches; answers the match. */
  async says(pattern: RegExp | string, timeoutMs = 10_000): Promise<RegExpExecArray> {
    const regex = typeof pattern === 'string' ? new RegExp(pattern.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')) : pattern
    return new Promise((resolve, reject) => {
      const finish = (act: () => void) => {
        clearTimeout(timer)
        this.#listeners.delete(look)
        act()
      }
      const complaint = (why: string) =>
        new Error(`${why} before it said ${regex}; stdout:\n${this.stdout.slice(-500)}\nstderr:\n${this.stderr.slice(-500)}`)
      const look = () => {
        const match = regex.exec(this.stdout)
        if (match !== null) finish(() => resolve(match))
        else if (this.#ended) finish(() => reject(complaint('ended')))
      }
      const timer = setTimeout(() => finish(() => reject(complaint(`${timeoutMs} ms passed`))), timeoutMs)
      this.#listeners.add(look)
      look()
    })
  }

  /** The pipe with this number (3 …). */
  pipe(fd: number): Writable {
    return this.#child.stdio[fd as 3] as Writable
  }
}

const SIGNALS: Readonly<Record<string, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGABRT: 6,
  SIGKILL: 9,
  SIGSEGV: 11,
  SIGPIPE: 13,
  SIGTERM: 15,
}

/** The command under a terminal of its own: everything it writes comes as `stdout`. */
export class Terminal extends Conversation {
  constructor(argv: readonly string[], { rows = 24, columns = 80, ...options }: SpawnOptions & { rows?: number; columns?: number } = {}) {
    super(['/usr/bin/python3', TERMINAL, String(rows), String(columns), ...argv], options, 1)
  }

  resize(rows: number, columns: number): void {
    this.pipe(3).write(`${rows} ${columns}\n`)
  }
}

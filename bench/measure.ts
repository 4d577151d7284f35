/** Running and timing programs: every figure is a median of several runs, ours and the peer's taken in turns. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'

export interface Timed {
  readonly ms: number
  readonly stdout: string
}

/** Runs a program to its end and times it from fork to exit. Throws when it fails. */
export async function timed(argv: readonly [string, ...string[]], env: NodeJS.ProcessEnv = process.env): Promise<Timed> {
  const started = process.hrtime.bigint()
  const child = spawn(argv[0], argv.slice(1), { stdio: ['ignore', 'pipe', 'pipe'], env })
  let stdout = ''
  let stderr = ''
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
  const exited = once(child, 'exit').then(([code]) => ({
    code: code as number | null,
    ms: Number(process.hrtime.bigint() - started) / 1e6,
  }))
  await once(child, 'close')
  const { code, ms } = await exited
  if (code !== 0) throw new Error(`${argv.join(' ')} exited with ${String(code)}: ${stderr || stdout}`)
  return { ms, stdout }
}

/** Starts a workload in a session of its own with no terminal, and waits until it says READY. */
export async function workload(argv: readonly [string, ...string[]]): Promise<ChildProcess & { readonly pid: number }> {
  const child = spawn(argv[0], argv.slice(1), { stdio: ['ignore', 'pipe', 'ignore'], detached: true })
  await once(child.stdout, 'data')
  child.stdout.destroy()
  if (child.pid === undefined) throw new Error(`${argv[0]} did not start`)
  return child as ChildProcess & { readonly pid: number }
}

/** As `workload`, with its output in a file: a pipe to us would be part of the dump. */
export async function quietWorkload(argv: readonly [string, ...string[]], log: string): Promise<ChildProcess & { readonly pid: number }> {
  const out = openSync(log, 'a')
  const child = spawn(argv[0], argv.slice(1), { stdio: ['ignore', out, out], detached: true })
  closeSync(out)
  if (child.pid === undefined) throw new Error(`${argv[0]} did not start`)
  while (!readFileSync(log, 'utf8').includes('READY')) await new Promise((resolve) => setTimeout(resolve, 20))
  return child as ChildProcess & { readonly pid: number }
}

/** As the peers leave their images in the page cache: what it takes until those of a directory are on the disk. */
export const syncMs = async (directory: string): Promise<number> =>
  (await timed(['sync', ...readdirSync(directory).map((name) => join(directory, name))])).ms

/** Milliseconds that the processors have worked since boot, for whatever it was, shared out among them: nothing can take less than it adds to that. */
export function processorMs(): number {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = readFileSync('/proc/stat', 'utf8').split(/\s+/, 8).slice(1).map(Number)
  return ((user + nice + system + irq + softirq) * 10) / cpus().length
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  return sorted.length % 2 === 1 ? (sorted[middle] ?? NaN) : ((sorted[middle - 1] ?? NaN) + (sorted[middle] ?? NaN)) / 2
}

/** The smallest value that this part of all does not exceed. */
export function percentile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.ceil(part * sorted.length) - 1] ?? NaN
}

/** Runs each contender `rounds` times, in turns, so that a slow minute of the machine hits all of them. The first round warms up and is dropped. */
export async function inTurns<K extends string>(
  rounds: number,
  contenders: Readonly<Record<K, () => Promise<number>>>,
): Promise<Record<K, number[]>> {
  const results = Object.fromEntries(Object.keys(contenders).map((name) => [name, [] as number[]])) as Record<K, number[]>
  for (let round = 0; round <= rounds; round++) {
    for (const name of Object.keys(contenders) as K[]) {
      const value = await contenders[name]()
      if (round > 0) results[name].push(value)
    }
  }
  return results
}

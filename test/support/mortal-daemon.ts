/** A daemon for a world without one, which dies by SIGKILL at the step it is told, and is followed by the next. */
import { buildSync } from 'esbuild'
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect } from 'vitest'
import { until } from './wait.js'
import type { World } from './world.js'

const ROOT = join(import.meta.dirname, '..', '..')

export class MortalDaemon {
  /** Where node finds its packages, and nobody who packs or counts what was built. */
  readonly #bundle = join(ROOT, 'build', `faulty-daemon-${process.pid}.mjs`)
  #process: ChildProcess | undefined

  constructor(private readonly world: World) {}

  get #fault(): string {
    return join(this.world.dir, 'fault')
  }

  async open(): Promise<void> {
    buildSync({
      entryPoints: [join(ROOT, 'test/support/faulty-daemon.ts')],
      outfile: this.#bundle,
      bundle: true,
      platform: 'node',
      format: 'esm',
      target: 'node20',
      external: ['better-sqlite3', 'grpc-health-check', '@grpc/reflection'],
      banner: { js: 'import { createRequire as requireFrom } from "node:module"; const require = requireFrom(import.meta.url);' },
      define: { 'import.meta.url': JSON.stringify(`file://${join(ROOT, 'src/daemon/main.ts')}`) },
      logLevel: 'error',
    })
    await this.#start()
  }

  async #start(): Promise<void> {
    const log = openSync(this.world.daemonLog, 'a')
    this.#process = spawn(process.execPath, [this.#bundle], {
      env: { ...this.world.env, CEDANA_TEST_FAULT: this.#fault },
      detached: true,
      stdio: ['ignore', log, log],
    })
    closeSync(log)
    await until('the daemon answers', () => this.world.answers(), 30_000)
  }

  /** Runs the command that takes the daemon to its death after that step, and starts the next daemon. */
  async killAfter(operation: string, step: string, args: readonly string[]): Promise<void> {
    if (!this.#process) throw new Error('no daemon')
    writeFileSync(this.#fault, `${operation}: after ${step}`)
    const ended = once(this.#process, 'exit')
    const outcome = await this.world.cedana(args)
    rmSync(this.#fault)
    expect(outcome.code, `${operation} survived the daemon's end after ${step}: ${outcome.stdout}`).not.toBe(0)
    await ended
    await this.#start()
  }

  /** Runs the command, kills the daemon when it is time, and starts the next one. */
  async killWhen(args: readonly string[], isTime: () => Promise<unknown>): Promise<void> {
    const daemon = this.#process
    if (!daemon) throw new Error('no daemon')
    const ended = once(daemon, 'exit')
    const outcome = this.world.cedana(args)
    await isTime()
    daemon.kill('SIGKILL')
    await Promise.all([ended, outcome])
    await this.#start()
  }

  async close(): Promise<void> {
    const daemon = this.#process
    if (daemon && daemon.exitCode === null && daemon.signalCode === null) {
      const ended = once(daemon, 'exit')
      daemon.kill('SIGTERM')
      await ended
    }
    rmSync(this.#bundle, { force: true })
  }
}

export function useMortalDaemon(world: World): MortalDaemon {
  const daemon = new MortalDaemon(world)
  beforeAll(() => daemon.open(), 60_000)
  afterAll(() => daemon.close(), 60_000)
  return daemon
}

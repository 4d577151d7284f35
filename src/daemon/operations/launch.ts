/** The other side of `Program.launch`: a process of its own below the shim, in which a plugin brings a target up. */
import { createReadStream } from 'node:fs'
import { appendFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { CudaDriver } from '../../plugins/contract/cuda.js'
import { CedanaError, type ErrorCode } from '../../plugins/contract/errors.js'
import type { Log } from '../../plugins/contract/host.js'
import type { ParsedOptions } from '../../plugins/contract/options.js'
import type { Launcher } from '../../plugins/contract/plan.js'
import type { LaunchContext } from '../../plugins/contract/runtime.js'
import type { Registry } from '../../plugins/registry.js'
import type { Config } from '../config.js'
import { exists } from '../host/processes.js'
import { writeWhole } from '../host/write-whole.js'
import { hostFor } from './host.js'

/** What a launcher is told: a file in the directory of the job. */
export interface LaunchOrder {
  readonly type: string
  readonly launch: ParsedOptions
  readonly launcher: Launcher
  /** Of the daemon: it finds the same plugins. */
  readonly config: Pick<Config, 'plugins' | 'gpu'>
}

/** A line of the launcher's log. */
export interface LaunchFailure {
  readonly msg: string
  readonly code?: ErrorCode | undefined
  readonly hint?: string | undefined
}

interface Surroundings {
  readonly runtimes: Registry
  readonly cuda: CudaDriver
  readonly environment: Readonly<Record<string, string | undefined>>
  /** The private directory of the job. */
  readonly directory: string
  readonly signal: AbortSignal
}

const HELD_EVERY_MS = 2
const nothing = (): void => undefined
/** It says what it has to say once, at its end. */
export const SILENT: Log = { debug: nothing, info: nothing, warn: nothing }

function contextFor({ environment, signal }: Surroundings, { pidFile }: Launcher): LaunchContext {
  return {
    pid: process.pid,
    environment: Object.fromEntries(Object.entries(environment).filter((entry): entry is [string, string] => entry[1] !== undefined)),
    announce: async ({ pid, startTicks }) => {
      await writeWhole(pidFile, `${pid} ${startTicks}`)
      while (await exists(pidFile)) await sleep(HELD_EVERY_MS, undefined, { signal })
    },
    read: (path) => createReadStream(path, { highWaterMark: 1 << 20 }),
    writeFile: (path, text) => writeWhole(path, text),
    writeProgram: (path, text) => writeWhole(path, text, 0o700),
  }
}

/** Answers the exit code. */
export async function launcherHost(surroundings: Surroundings, { type, launch, launcher }: LaunchOrder): Promise<number> {
  const { runtimes, cuda, directory, signal } = surroundings
  try {
    const bringUp = await runtimes.verb(type, 'launch')
    const host = hostFor({ runtimes, cuda, log: SILENT, config: { run_dir: directory } }, signal)
    await bringUp(host, contextFor(surroundings, launcher), launch)
    return 0
  } catch (thrown) {
    const { code, message, hint } = CedanaError.from(thrown)
    const failure: LaunchFailure = { msg: message, code, hint }
    await appendFile(launcher.log, `${JSON.stringify(failure)}\n`, { mode: 0o600 })
    return 1
  }
}

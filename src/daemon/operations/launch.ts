/** The other side of `Program.launch`: a process of its own below the shim, in which a plugin brings a target up. */
import { createReadStream } from 'node:fs'
import { appendFile, readFile, rename, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pino from 'pino'
import type { CudaDriver } from '../../plugins/contract/cuda.js'
import { CedanaError, type ErrorCode } from '../../plugins/contract/errors.js'
import type { ParsedOptions } from '../../plugins/contract/options.js'
import type { Launcher } from '../../plugins/contract/plan.js'
import type { LaunchContext } from '../../plugins/contract/runtime.js'
import type { Registry } from '../../plugins/registry.js'
import { exists } from '../host/processes.js'
import { hostFor } from './host.js'

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
  readonly signal: AbortSignal
}

const HELD_EVERY_MS = 2

function contextFor({ environment, signal }: Surroundings, { pidFile }: Launcher): LaunchContext {
  return {
    pid: process.pid,
    environment: Object.fromEntries(Object.entries(environment).filter((entry): entry is [string, string] => entry[1] !== undefined)),
    announce: async ({ pid, startTicks }) => {
      await writeFile(`${pidFile}.new`, `${pid} ${startTicks}`, { mode: 0o600 })
      await rename(`${pidFile}.new`, pidFile)
      while (await exists(pidFile)) await sleep(HELD_EVERY_MS, undefined, { signal })
    },
    read: (path) => createReadStream(path, { highWaterMark: 1 << 20 }),
    writeProgram: async (path, text) => {
      await writeFile(`${path}.new`, text, { mode: 0o700 })
      await rename(`${path}.new`, path)
    },
  }
}

/** Answers the exit code. */
export async function launcherHost(surroundings: Surroundings, type: string, file: string): Promise<number> {
  const { launch, launcher } = JSON.parse(await readFile(file, 'utf8')) as { launch: ParsedOptions; launcher: Launcher }
  const config = { run_dir: dirname(file) }
  const { runtimes, cuda, signal } = surroundings
  try {
    const bringUp = await runtimes.verb(type, 'launch')
    await bringUp(hostFor({ runtimes, cuda, log: pino({ level: 'silent' }), config }, signal), contextFor(surroundings, launcher), launch)
    return 0
  } catch (thrown) {
    const { code, message, hint } = CedanaError.from(thrown)
    const failure: LaunchFailure = { msg: message, code, hint }
    await appendFile(launcher.log, `${JSON.stringify(failure)}\n`, { mode: 0o600 })
    return 1
  }
}

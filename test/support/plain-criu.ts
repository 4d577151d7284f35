/** CRIU without cedana, to tell whose fault a failure is. */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { processInfo } from './processes.js'
import { until } from './wait.js'

const BUNDLED = '/opt/cedana/criu/bin/criu'
export const criuPath = (): string => process.env.CEDANA_CRIU_BINARY_PATH || (existsSync(BUNDLED) ? BUNDLED : 'criu')

async function criu(args: readonly string[], log: string): Promise<void> {
  try {
    await promisify(execFile)(criuPath(), [...args, '-v2', '-o', log])
  } catch (cause) {
    const text = await readFile(log, 'utf8').catch(() => '')
    const errors = text.split('\n').filter((line) => line.includes('Error') && !line.includes('RLIMIT_NOFILE for self'))
    throw new Error(`criu ${args[0]}: ${errors.slice(0, 3).join('\n') || String(cause)}`, { cause })
  }
}

/** Dumps the tree below `pid` into `directory`, and waits until every pid of it is free again. */
export async function plainDump(pid: number, directory: string, members: readonly number[], flags: readonly string[] = []): Promise<void> {
  await mkdir(directory, { recursive: true })
  await criu(['dump', '-t', String(pid), '-D', directory, ...flags], join(directory, 'dump.log'))
  // Orphans are reaped by init, which may take its time.
  await until('the dumped processes are reaped', () => members.every((one) => processInfo(one) === undefined))
}

export async function plainRestore(directory: string, flags: readonly string[] = []): Promise<void> {
  await criu(['restore', '-d', '-D', directory, ...flags], join(directory, 'restore.log'))
}

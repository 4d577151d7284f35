/**
 * Directories in which CRIU works: where it is killed it leaves every hierarchy of cgroups mounted, and to remove what is in them would be to remove
 * cgroups.
 */
import { execFile } from 'node:child_process'
import { rmSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { promisify } from 'node:util'
import { readText } from './processes.js'

const run = promisify(execFile)

export async function unmountBelow(directory: string): Promise<void> {
  const mountinfo = (await readText('/proc/self/mountinfo')) ?? ''
  const paths = mountinfo.split('\n').map((line) => line.split(' ')[4] ?? '')
  // One that is let go takes with it what is mounted below: those are gone then. A name with blanks is written otherwise, and is none of CRIU's.
  for (const path of paths.filter((one) => one.startsWith(`${directory}/`))) await run('umount', ['--lazy', path]).catch(() => undefined)
}

export async function removeDirectory(directory: string): Promise<void> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => [])
  if (entries.some((entry) => entry.isDirectory())) await unmountBelow(directory)
  // There is little in it: by a thread, each of the calls would take longer than all of them do here.
  rmSync(directory, { recursive: true, force: true })
}

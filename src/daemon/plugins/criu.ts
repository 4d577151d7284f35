/** `plugin install criu`: the private CRIU, by the script that makes it on a new machine. */
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { CedanaError } from '../../plugins/contract/errors.js'
import { formatVersion, parseVersion } from '../host/criu.js'
import { criuSelfTest, PRIVATE_CRIU } from '../host/probe.js'

const execute = promisify(execFile)
const INSTALL_MS = 300_000
const PREFIX = dirname(dirname(PRIVATE_CRIU))

const INSTALL = fileURLToPath(new URL('../../../scripts/criu-install', import.meta.url))

async function version(): Promise<string> {
  return formatVersion(parseVersion((await execute(PRIVATE_CRIU, ['--version'])).stdout))
}

/** One that works is left alone; else it is made again, for the kernel that runs. */
export async function installCriu(): Promise<{ readonly version: string; readonly outcome: 'installed' | 'unchanged' }> {
  if ((await criuSelfTest(PRIVATE_CRIU)).outcome === 'passed') return { version: await version(), outcome: 'unchanged' }
  await execute(INSTALL, [PREFIX], { timeout: INSTALL_MS }).catch((cause: unknown) => {
    const said = ((cause as { readonly stderr?: string }).stderr ?? '').trim().split('\n').at(-1) ?? ''
    throw new CedanaError('HOST_UNFIT', `no CRIU could be installed${said === '' ? '' : `: ${said}`}`, { cause })
  })
  return { version: await version(), outcome: 'installed' }
}

export async function removeCriu(): Promise<void> {
  await execute(PRIVATE_CRIU, ['--version']).catch((cause: unknown) => {
    throw new CedanaError('NO_SUCH_PACKAGE', 'Plugin criu is not installed', { cause })
  })
  // Gone at once: nobody finds half of it.
  const gone = `${PREFIX}.${randomBytes(6).toString('hex')}`
  await rename(PREFIX, gone)
  await rm(gone, { recursive: true, force: true })
}

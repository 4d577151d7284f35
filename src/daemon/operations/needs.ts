/** What plugins need of this machine, and what is there. */
import { release } from 'node:os'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Requirement } from '../../plugins/contract/capability.js'
import { satisfies } from '../../plugins/contract/version.js'
import { formatVersion } from '../host/criu.js'
import type { Environment } from './environment.js'
import { hostFor } from './host.js'
import type { Need } from './verbs.js'

const VERSION_MS = 10_000

function versioned(name: string, wanted: string, found: string): Need {
  const isFit = wanted === '' || satisfies(found, wanted)
  return { name, wanted, found, problem: isFit ? '' : `${name} ${found} does not do: ${wanted} is needed` }
}

const missing = (name: string, wanted: string, problem: string): Need => ({ name, wanted, found: 'missing', problem })

async function binary(env: Environment, signal: AbortSignal, name: string, wanted: string): Promise<Need> {
  const host = hostFor(env, signal)
  // Not every program knows the long one.
  for (const flag of ['--version', '-V']) {
    const said = await host.exec([name, flag], { timeoutMs: VERSION_MS }).catch(() => undefined)
    if (said === undefined) return missing(name, wanted, `${name} is not installed`)
    const version = /\d+(\.\d+)+/.exec(said.stdout)?.[0]
    if (version !== undefined) return versioned(name, wanted, version)
  }
  return {
    name,
    wanted,
    found: 'of unknown version',
    problem: wanted === '' ? '' : `${name} does not tell its version: ${wanted} is needed`,
  }
}

async function criu(env: Environment, wanted: string): Promise<Need> {
  try {
    return versioned('criu', wanted, formatVersion((await env.criu()).version))
  } catch (thrown) {
    return missing('criu', wanted, CedanaError.from(thrown).message)
  }
}

export async function examine(env: Environment, signal: AbortSignal, need: Requirement): Promise<Need> {
  if ('binary' in need) return binary(env, signal, need.binary, need.version ?? '')
  if ('criu' in need) return criu(env, need.criu)
  if ('kernel' in need) return versioned('kernel', need.kernel, release())
  if ('capability' in need) {
    const { capabilities } = await env.facts()
    const has = capabilities.has(need.capability)
    return has
      ? { name: need.capability, wanted: '', found: 'held', problem: '' }
      : missing(need.capability, '', `${need.capability} is missing`)
  }
  const isRoot = process.geteuid?.() === 0
  return { name: 'root', wanted: '', found: isRoot ? 'yes' : 'no', problem: isRoot ? '' : 'only root can do this' }
}

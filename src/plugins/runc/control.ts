/** What is done to a container from outside, by the runtime itself so that its own view stays true. */
import { setTimeout } from 'node:timers/promises'
import type { Host } from '../contract/host.js'
import type { Target } from '../contract/job.js'
import { tell } from '../contract/kit.js'
import type { ParsedOptions } from '../contract/options.js'
import { freezerOf, isFrozen } from './cgroup.js'
import { runtimeCommand } from './command-line.js'
import { findState, type Identity, identityOf, initOf } from './state.js'

const SIGKILL = 9
const TIMEOUT_MS = 10_000
const CGROUP_RETRY_MS = 100

async function have(host: Host, identity: Identity, verb: string): Promise<void> {
  const name = `${identity.runtime} ${verb} ${identity.id}`
  await tell(host, [...runtimeCommand(identity), verb, identity.id], { timeoutMs: TIMEOUT_MS, name })
}

async function frozen(host: Host, target: Target): Promise<boolean | undefined> {
  const lines = await host.readText(`/proc/${target.pid}/cgroup`)
  const freezer = lines === undefined ? undefined : freezerOf(lines.split('\n'))
  return freezer === undefined ? undefined : isFrozen(host, freezer)
}

export async function freeze(host: Host, target: Target, identity: ParsedOptions): Promise<void> {
  if ((await frozen(host, target)) !== true) await have(host, identityOf(identity), 'pause')
}

export async function unfreeze(host: Host, target: Target, identity: ParsedOptions): Promise<void> {
  if ((await frozen(host, target)) !== false) await have(host, identityOf(identity), 'resume')
}

/**
 * The end of a container's first process is the end of all of it. In a frozen cgroup of version 1 it takes effect only when that thaws; one of version 2
 * stays frozen when all in it are dead.
 */
export async function kill(host: Host, target: Target, signal: number, identity: ParsedOptions): Promise<void> {
  const isFrozenNow = await frozen(host, target)
  await host.kill(target, signal)
  if (signal === SIGKILL && isFrozenNow === true) await have(host, identityOf(identity), 'resume')
}

/** runc gives up soon where the last process has ended but is not out of its cgroup yet, as on a busy machine. */
async function removeCgroups(host: Host, directories: readonly string[]): Promise<void> {
  for (let tries = 0; tries < 20; tries++) {
    const existing = await Promise.all(directories.map(async (path) => ((await host.exists(path)) ? [path] : [])))
    const left = existing.flat()
    if (left.length === 0) return
    await host.exec(['rmdir', ...left], { timeoutMs: TIMEOUT_MS })
    await setTimeout(CGROUP_RETRY_MS, undefined, { signal: host.signal })
  }
}

export async function remove(host: Host, target: Target | undefined, named: ParsedOptions): Promise<void> {
  const identity = identityOf(named)
  const state = await findState(host, identity)
  if (!state || (await initOf(host, state))) return
  const isAnother = target !== undefined && (state.pid !== target.pid || state.startTicks !== target.startTicks)
  if (isAnother) return
  await have(host, identity, 'delete').catch(async () => {
    // Killed while it was frozen: to the runtime it is paused, not stopped, until it is resumed by us or whoever killed it.
    await have(host, identity, 'resume').catch(() => undefined)
    if (await findState(host, identity)) await have(host, identity, 'delete')
    else await removeCgroups(host, state.cgroups)
  })
}

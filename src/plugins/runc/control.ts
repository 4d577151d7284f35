/** What is done to a container from outside, by the runtime itself so that its own view stays true. */
import { setTimeout } from 'node:timers/promises'
import type { Host } from '../contract/host.js'
import type { Target } from '../contract/job.js'
import { absoluteIn, isBind, tell } from '../contract/kit.js'
import type { ParsedOptions } from '../contract/options.js'
import type { RemoveReason } from '../contract/runtime.js'
import { configuredCgroups, freezerOf, isFrozen } from './cgroup.js'
import { runtimeCommand } from './command-line.js'
import { type HostMount, hostMounts, placeOf } from './host-mounts.js'
import { readSpec, type Spec } from './spec.js'
import { type ContainerState, findState, type Identity, identityOf, initOf, isCrun } from './state.js'

const SIGKILL = 9
const TIMEOUT_MS = 10_000
const CGROUP_RETRY_MS = 100

async function have(host: Host, identity: Identity, verb: string, ...flags: readonly string[]): Promise<void> {
  const name = `${identity.runtime} ${verb} ${identity.id}`
  await tell(host, [...runtimeCommand(identity), verb, ...flags, identity.id], { timeoutMs: TIMEOUT_MS, name })
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

/** On a busy machine the last process may have ended and not be out of its cgroup yet. */
async function removeCgroups(host: Host, directories: readonly string[]): Promise<void> {
  for (let tries = 0; tries < 20; tries++) {
    const existing = await Promise.all(directories.map(async (path) => ((await host.exists(path)) ? [path] : [])))
    const left = existing.flat()
    if (left.length === 0) return
    await host.exec(['rmdir', ...left], { timeoutMs: TIMEOUT_MS })
    await setTimeout(CGROUP_RETRY_MS, undefined, { signal: host.signal })
  }
}

/** Where the runtime makes its cgroups, as the bundle says. */
async function cgroupsOf(host: Host, { id, runtime }: Identity, spec: Spec | undefined): Promise<readonly string[]> {
  return spec ? configuredCgroups(host, { id, isCrun: isCrun(runtime), path: spec.linux?.cgroupsPath ?? '' }) : []
}

/**
 * What `runc restore` has mounted for CRIU and itself: the root file system in the state directory, and what is bound into it. Before all else: to remove
 * that directory with the mount in it would be to empty the root file system.
 */
async function unmount(host: Host, { root, id, bundle }: Identity, spec: Spec | undefined): Promise<void> {
  const mounts = await hostMounts(host)
  const rootfs = spec && absoluteIn(bundle, spec.root.path)
  const isBound = ({ path, device, root: bound }: HostMount): boolean =>
    (spec?.mounts ?? []).some((one) => {
      if (!isBind(one) || one.source === undefined || path !== `${rootfs ?? ''}${one.destination}`) return false
      const source = placeOf(absoluteIn(bundle, one.source), mounts)
      return source?.device === device && source.root === bound
    })
  // One that is let go takes with it what is mounted below.
  for (const mount of mounts)
    if (mount.path.startsWith(`${root}/${id}/`) || isBound(mount))
      await host.exec(['umount', '--lazy', mount.path], { timeoutMs: TIMEOUT_MS })
}

/** A start that was broken off, wherever that was: whatever has that name is what it has made, since nothing had when it was planned. */
async function undo(host: Host, identity: Identity, state: ContainerState | undefined): Promise<void> {
  const spec = await readSpec(host, state?.bundle || identity.bundle).catch(() => undefined)
  const cgroups = new Set([...(state?.cgroups ?? []), ...(await cgroupsOf(host, identity, spec))])
  await unmount(host, identity, spec)
  // The directory is made first, and its record much later.
  if (await host.exists(`${identity.root}/${identity.id}`)) await have(host, identity, 'delete', '--force')
  await removeCgroups(host, [...cgroups])
}

/** The runtime gives up soon where the last process has ended but is not out of its cgroup yet, and forgets the container all the same. */
async function sweep(host: Host, identity: Identity): Promise<void> {
  const spec = await readSpec(host, identity.bundle).catch(() => undefined)
  await removeCgroups(host, await cgroupsOf(host, identity, spec))
}

export async function remove(host: Host, target: Target | undefined, named: ParsedOptions, why: RemoveReason): Promise<void> {
  const identity = identityOf(named)
  const state = await findState(host, identity)
  if (target === undefined) {
    if (why === 'undone') await undo(host, identity, state)
    else if (!(await host.exists(`${identity.root}/${identity.id}`))) await sweep(host, identity)
    return
  }
  if (!state || (await initOf(host, state))) return
  if (state.pid !== target.pid || state.startTicks !== target.startTicks) return
  await have(host, identity, 'delete').catch(async () => {
    // Killed while it was frozen: to the runtime it is paused, not stopped, until it is resumed by us or whoever killed it.
    await have(host, identity, 'resume').catch(() => undefined)
    if (await findState(host, identity)) await have(host, identity, 'delete')
    else await removeCgroups(host, state.cgroups)
  })
}

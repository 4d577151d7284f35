/**
 * What runc keeps of a container that nobody has any more: who kills it while it makes or restores one, be it by killing containerd or the shim, leaves
 * its state directory, in that the root file system mounted for CRIU, and cgroups. By its state directory runc refuses the next of that name.
 */
import { basename } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { CedanaError } from '../contract/errors.js'
import type { Host } from '../contract/host.js'
import { tell } from '../contract/kit.js'
import type { Container } from './gen/containers.js'
import { bundlesIn, mounted, mountedBelow } from './mounts.js'
import { cgroupOf, parseSpec } from './spec.js'
import { type Identity, runcName, runcOptions } from './state.js'

const SIGKILL = 9
const TIMEOUT_MS = 10_000
/** How long who dies may take to leave a cgroup, and how often is looked. */
const END_MS = 2000
const LOOK_MS = 20
/** What the state says of where the container was made, by runc in one way and by crun in another. */
const BUNDLE = /"bundle(?:=|": *")([^"]*)"/

const hasBundle = async (host: Host, { namespace, id }: Identity): Promise<boolean> =>
  (await bundlesIn(host, namespace)).some(([, of]) => of === id)

/** Whether anybody has a container of that name: a containerd its bundle, or runc a live process. One that is only being made has its bundle before. */
async function isSomebodys(host: Host, identity: Identity, { root, runtime, directory }: State): Promise<boolean> {
  if (await hasBundle(host, identity)) return true
  const texts = await Promise.all(['state.json', 'status'].map((name) => host.readText(`${directory}/${name}`)))
  const bundle = BUNDLE.exec(texts.join('\n'))?.[1]
  if (bundle === undefined) return false
  if (await host.exists(bundle)) return true
  const [program, ...rest] = [runtime, '--root', root, 'state', identity.id] as const
  const { code, stdout } = await host.exec([program, ...rest], { timeoutMs: TIMEOUT_MS })
  return code === 0 && (JSON.parse(stdout) as { readonly status: string }).status !== 'stopped'
}

interface State {
  readonly root: string
  readonly runtime: string
  readonly directory: string
}

/** Undefined: nothing is there. */
async function stateOf(host: Host, identity: Identity, container: Container | undefined): Promise<State | undefined> {
  const options = container && runcOptions(container)
  if (container && options === undefined) return undefined
  const { root, runtime } = runcName(identity, options)
  const directory = `${root}/${identity.id}`
  return (await host.exists(directory)) ? { root, runtime, directory } : undefined
}

/** Before all else: to remove a directory with the root file system mounted in it would be to empty that. */
async function unmountBelow(host: Host, directory: string): Promise<void> {
  // One that is let go takes with it what is mounted below.
  for (const point of await mountedBelow(host, directory)) await host.exec(['umount', '--lazy', point], { timeoutMs: TIMEOUT_MS })
  const [left] = await mountedBelow(host, directory)
  if (left !== undefined) throw new CedanaError('HOST_UNFIT', `cannot unmount ${left}`, { hint: 'unmount it by hand' })
}

/** Where they may be. Those that systemd has made it removes itself. */
async function cgroupsOf(host: Host, identity: Identity, container: Container | undefined): Promise<readonly string[]> {
  const path = (container?.spec && parseSpec(container.spec).linux?.cgroupsPath) ?? cgroupOf(identity)
  if (!/^\/./.test(path)) return []
  return (await mounted(host)).flatMap(({ point, filesystem }) => (/^cgroup2?$/.test(filesystem) ? [`${point}${path}`] : []))
}

/** CRIU, and whoever it has brought that far, of a container that runc does not know yet. In cgroups that are called by it there is nobody else. */
export async function killRestorers(host: Host, identity: Identity, container: Container): Promise<void> {
  const own = (await cgroupsOf(host, identity, container)).filter((one) => basename(one) === identity.id)
  const members = await Promise.all(own.map((one) => host.readText(`${one}/cgroup.procs`)))
  for (const pid of new Set(members.join('\n').split('\n').filter(Boolean).map(Number))) {
    const target = await host.identify(pid).catch(() => undefined)
    if (target) await host.kill(target, SIGKILL)
  }
}

/** Those that nobody is in, or only who is about to die: one with a member is not removed. */
export async function removeCgroups(host: Host, identity: Identity, container: Container | undefined): Promise<void> {
  if (await hasBundle(host, identity)) return
  const all = await cgroupsOf(host, identity, container)
  for (const until = Date.now() + END_MS; Date.now() < until; await sleep(LOOK_MS)) {
    const left = (await Promise.all(all.map(async (one) => ((await host.exists(one)) ? [one] : [])))).flat()
    if (left.length === 0) return
    await host.exec(['rmdir', ...left], { timeoutMs: TIMEOUT_MS })
  }
}

/** `container`: as containerd has it, or had it. To be asked where it has no task of that name. Throws TARGET_UNFIT when runc's is somebody's. */
export async function removeOrphan(host: Host, identity: Identity, container: Container | undefined): Promise<void> {
  const state = await stateOf(host, identity, container)
  if (!state) return
  const { root, runtime, directory } = state
  if (await isSomebodys(host, identity, state))
    throw new CedanaError('TARGET_UNFIT', `a container ${identity.id} that is not of this containerd is in ${root}`, {
      hint: 'choose another id with --id',
    })
  host.log.info({ id: identity.id, directory }, 'what runc had left of a container is removed')
  await unmountBelow(host, directory)
  await tell(host, [runtime, '--root', root, 'delete', '--force', identity.id], { timeoutMs: TIMEOUT_MS, name: `${runtime} delete` })
  await removeCgroups(host, identity, container)
}

/** What is done to a container from outside, through containerd, so that its own view stays true. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Host } from '../contract/host.js'
import type { ExitStatus, Target } from '../contract/job.js'
import { exitOf } from '../contract/kit.js'
import type { ParsedOptions } from '../contract/options.js'
import type { RemoveReason } from '../contract/runtime.js'
import { type Containerd, found, isUnreachable } from './client.js'
import { type Container, ContainersService } from './gen/containers.js'
import { SnapshotsService } from './gen/snapshots.js'
import { type Process, Status } from './gen/task.js'
import { TasksService } from './gen/tasks.js'
import { BEGUN, MADE_FOR, nameOf, replacedIn } from './labels.js'
import { removeLeftLeases } from './lease.js'
import { removeCgroups, removeOrphan } from './orphan.js'
import { connect, findContainer, findTask, identityOf, isLive } from './state.js'
import { onceBack } from './undo.js'

const SIGKILL = 9
/** How long what was killed may take to end, and how often is looked. */
const END_MS = 1000
const LOOK_MS = 20

async function isPaused(containerd: Containerd, id: string): Promise<boolean> {
  const task = await findTask(containerd, id)
  return task?.status === Status.PAUSED || task?.status === Status.PAUSING
}

export async function freeze(host: Host, _target: Target, identity: ParsedOptions): Promise<void> {
  const { id, ...place } = identityOf(identity)
  using containerd = connect(host, place)
  if (!(await isPaused(containerd, id))) await containerd.call(TasksService.pause, { containerId: id })
}

export async function unfreeze(host: Host, _target: Target, identity: ParsedOptions): Promise<void> {
  const { id, ...place } = identityOf(identity)
  using containerd = connect(host, place)
  if (await isPaused(containerd, id)) await containerd.call(TasksService.resume, { containerId: id })
}

/** The end of a container's first process is the end of all of it. In a frozen cgroup it takes effect only when that thaws. */
export async function kill(host: Host, target: Target, signal: number, identity: ParsedOptions): Promise<void> {
  await host.kill(target, signal)
  if (signal !== SIGKILL) return
  try {
    await unfreeze(host, target, identity)
  } catch (thrown) {
    // What was not frozen has ended without containerd.
    if (!isUnreachable(thrown) || !(await ends(host, target))) throw thrown
  }
}

async function ends(host: Host, { pid, startTicks }: Target): Promise<boolean> {
  for (const until = Date.now() + END_MS; Date.now() < until; await sleep(LOOK_MS)) {
    const now = await host.brief(pid)
    if (now?.target.startTicks !== startTicks || /[ZX]/.test(now.state)) return true
  }
  return false
}

export async function resize(
  host: Host,
  _target: Target,
  { rows: height, columns: width }: { readonly rows: number; readonly columns: number },
  identity: ParsedOptions,
): Promise<void> {
  const { id, ...place } = identityOf(identity)
  using containerd = connect(host, place)
  await containerd.call(TasksService.resizePty, { containerId: id, width, height })
}

export async function exitStatus(host: Host, target: Target, identity: ParsedOptions): Promise<ExitStatus | undefined> {
  const { id, ...place } = identityOf(identity)
  using containerd = connect(host, place)
  const task = await findTask(containerd, id)
  if (task?.pid !== target.pid) return undefined
  const { exitStatus: code } = await containerd.call(TasksService.wait, { containerId: id })
  return exitOf(code)
}

/**
 * The task goes, and with it what cedana itself has made for it: container and writable layer. Those of a dumped one stay, since a checkpoint
 * without the writable layer is nothing without it.
 */
export async function remove(host: Host, target: Target | undefined, named: ParsedOptions, why: RemoveReason): Promise<void> {
  const identity = identityOf(named)
  const { id } = identity
  using containerd = connect(host, identity)
  const task = await onceBack(() => findTask(containerd, id))
  // One that CRIU was to restore, and did not, has no process.
  if (task && target && task.pid !== 0 && task.pid !== target.pid) return
  const made = target ?? (task && (await host.identify(task.pid).catch(() => undefined)))
  if (task && target === undefined) {
    if (why !== 'undone' && isLive(task)) return
    await containerd.call(TasksService.kill, { containerId: id, signal: SIGKILL, all: true }).catch(() => undefined)
  }
  if (task) await deleteTask(containerd, task)
  if (why === 'dumped') return
  const container = await findContainer(containerd, id)
  if (target === undefined) await removeLeftLeases(host, containerd)
  await removeOrphan(host, identity, container)
  if (why === 'undone') await removeCgroups(host, identity, container)
  if (!container) return
  const madeFor = container.labels[MADE_FOR] ?? ''
  const isOurs =
    madeFor === BEGUN || (madeFor !== '' && target !== undefined && why === 'ended') || (made !== undefined && madeFor === nameOf(made))
  if (!isOurs) {
    if (target === undefined) await putBack(containerd, container)
    return
  }
  await found(containerd.call(ContainersService.delete, { id }))
  const { snapshotter, snapshotKey: key } = container
  if (key !== '') await found(containerd.call(SnapshotsService.remove, { snapshotter, key }))
}

/** The layer that a restore, which was broken off, had put another in the place of. */
async function putBack(containerd: Containerd, container: Container): Promise<void> {
  const { snapshotter, snapshotKey: key } = container
  const find = async (name: string) =>
    name === '' ? undefined : (await found(containerd.call(SnapshotsService.stat, { snapshotter, key: name })))?.info
  const former = (await find(key))?.labels[replacedIn(snapshotter)] ?? ''
  if (!(await find(former))) return
  await containerd.call(ContainersService.update, { container: { ...container, snapshotKey: former }, updateMask: ['snapshotkey'] })
  await found(containerd.call(SnapshotsService.remove, { snapshotter, key }))
}

/** containerd may hear of an end a moment later than we. */
async function deleteTask(containerd: Containerd, task: Process): Promise<void> {
  const { id: containerId } = task
  if (task.status !== Status.STOPPED && task.status !== Status.CREATED) await found(containerd.call(TasksService.wait, { containerId }))
  try {
    await found(containerd.call(TasksService.delete, { containerId }))
  } catch (thrown) {
    // Who deletes it at the same time as we ends its shim under us.
    if (await findTask(containerd, containerId)) throw thrown
  }
}

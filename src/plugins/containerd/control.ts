/** What is done to a container from outside, through containerd, so that its own view stays true. */
import type { Host } from '../contract/host.js'
import type { ExitStatus, Target } from '../contract/job.js'
import { exitOf } from '../contract/kit.js'
import type { ParsedOptions } from '../contract/options.js'
import type { RemoveReason } from '../contract/runtime.js'
import { type Containerd, found } from './client.js'
import { ContainersService } from './gen/containers.js'
import { SnapshotsService } from './gen/snapshots.js'
import { type Process, Status } from './gen/task.js'
import { TasksService } from './gen/tasks.js'
import { BEGUN, MADE_FOR, nameOf } from './labels.js'
import { connect, findContainer, findTask, identityOf, isLive } from './state.js'

const SIGKILL = 9

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
  if (signal === SIGKILL) await unfreeze(host, target, identity)
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
  const { id, ...place } = identityOf(named)
  using containerd = connect(host, place)
  const task = await findTask(containerd, id)
  if (task && target && task.pid !== target.pid) return
  if (task && !(await deleteTask(containerd, task, target))) return
  if (why === 'dumped') return
  const container = await findContainer(containerd, id)
  const madeFor = container?.labels[MADE_FOR]
  if (!container || madeFor === undefined) return
  const isOurs = target === undefined ? madeFor === BEGUN : why === 'ended' || madeFor === nameOf(target)
  if (!isOurs) return
  await found(containerd.call(ContainersService.delete, { id }))
  const { snapshotter, snapshotKey: key } = container
  if (key !== '') await found(containerd.call(SnapshotsService.remove, { snapshotter, key }))
}

/** False when it lives on: it is somebody else's. containerd may hear of an end a moment later than we. */
async function deleteTask(containerd: Containerd, task: Process, target: Target | undefined): Promise<boolean> {
  const { id: containerId } = task
  if (isLive(task) && target === undefined) return false
  if (task.status !== Status.STOPPED && task.status !== Status.CREATED) await found(containerd.call(TasksService.wait, { containerId }))
  try {
    await found(containerd.call(TasksService.delete, { containerId }))
  } catch (thrown) {
    // Who deletes it at the same time as we ends its shim under us.
    if (await findTask(containerd, containerId)) throw thrown
  }
  return true
}

import type { z } from 'zod'
import type { Host } from '../contract/host.js'
import { refuseNone } from '../contract/kit.js'
import type { QueryResult } from '../contract/runtime.js'
import type { Container } from './gen/containers.js'
import { ContainersService } from './gen/containers.js'
import { type Process, Status } from './gen/task.js'
import { TasksService } from './gen/tasks.js'
import type { QueryOptions } from './options.js'
import { connect } from './state.js'

const STATUS: Readonly<Partial<Record<Status, string>>> = {
  [Status.CREATED]: 'created',
  [Status.RUNNING]: 'running',
  [Status.PAUSING]: 'pausing',
  [Status.PAUSED]: 'paused',
  [Status.STOPPED]: 'stopped',
}

export async function query(host: Host, options: z.output<typeof QueryOptions>): Promise<QueryResult> {
  using containerd = connect(host, options)
  const [{ containers }, { tasks }] = await Promise.all([
    containerd.call(ContainersService.list, {}),
    containerd.call(TasksService.list, {}),
  ])
  const shown = options.id.length === 0 ? containers : containers.filter(({ id }) => options.id.includes(id))
  const absent = options.id
    .filter((id) => !containers.some((one) => one.id === id))
    .map((id) => `container ${id}: does not exist in ${options.namespace}`)
  refuseNone('NO_SUCH_CONTAINER', shown, absent)
  const rows = shown.map((container) => ({
    cells: { ID: container.id, NAMESPACE: options.namespace, IMAGE: container.image, RUNTIME: container.runtime?.name ?? '' },
    state: stateOf(
      container,
      tasks.find(({ id }) => id === container.id),
    ),
  }))
  const counted = `Found ${rows.length} container${rows.length === 1 ? '' : 's'}`
  return {
    columns: ['ID', 'NAMESPACE', 'IMAGE', 'RUNTIME'],
    rows,
    messages: [...(rows.length > 0 ? [counted] : []), ...absent],
  }
}

/** The specification, which is long, is in the bundle of a running container. */
const stateOf = (container: Container, task: Process | undefined): object => ({
  id: container.id,
  image: container.image,
  runtime: container.runtime?.name ?? '',
  snapshotter: container.snapshotter,
  snapshotKey: container.snapshotKey,
  labels: container.labels,
  createdAt: container.createdAt?.toISOString() ?? '',
  status: task === undefined ? 'no task' : (STATUS[task.status] ?? 'unknown'),
  pid: task?.pid ?? 0,
})

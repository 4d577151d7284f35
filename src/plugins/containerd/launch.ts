/** Brings the task of a container up, in a process of its own: see `Program.launch`. */
import { randomBytes } from 'node:crypto'
import type { Host } from '../contract/host.js'
import type { Target } from '../contract/job.js'
import type { ParsedOptions } from '../contract/options.js'
import type { LaunchContext } from '../contract/runtime.js'
import { Containerd, found } from './client.js'
import { type Container, ContainersService } from './gen/containers.js'
import { LeasesService } from './gen/leases.js'
import { SnapshotsService } from './gen/snapshots.js'
import { TasksService } from './gen/tasks.js'
import type { Mount } from './gen/types.js'
import { findImage, imageMissing, readImage, unpack } from './images.js'
import { BEGUN, MADE_FOR, nameOf } from './labels.js'
import type { LaunchRequest, RunRequest } from './request.js'
import { specOf } from './spec.js'
import { encodeRuncOptions, RUNC } from './state.js'
import { Undo } from './undo.js'
import { userOf } from './users.js'

/** By then what was made and not finished is collected by containerd. */
const LEASE_MS = 60 * 60 * 1000
const SPEC_TYPE = 'types.containerd.io/opencontainers/runtime-spec/1/Spec'
const SIGKILL = 9

export async function launch(host: Host, context: LaunchContext, request: ParsedOptions): Promise<void> {
  const asked = request as unknown as LaunchRequest
  using containerd = new Containerd(asked.identity, host.signal)
  // What is taken back is when nothing else can be done any more.
  using patient = new Containerd(asked.identity)
  const undo = new Undo()
  await undo.around(async () => {
    const lease = `cedana-${randomBytes(8).toString('hex')}`
    const expires = new Date(Date.now() + LEASE_MS).toISOString()
    await containerd.call(LeasesService.create, { id: lease, labels: { 'containerd.io/gc.expire': expires } })
    const release = (): Promise<unknown> => found(patient.call(LeasesService.delete, { id: lease }))
    undo.add(release)
    containerd.useLease(lease)
    await new Launch(host, context, containerd, { patient, undo }).run(asked)
    await release()
  })
}

interface Tools {
  readonly patient: Containerd
  readonly undo: Undo
}

class Launch {
  readonly #patient: Containerd
  readonly #undo: Undo

  constructor(
    private readonly host: Host,
    private readonly context: LaunchContext,
    private readonly containerd: Containerd,
    { patient, undo }: Tools,
  ) {
    this.#patient = patient
    this.#undo = undo
  }

  async run(asked: RunRequest): Promise<void> {
    const { id } = asked.identity
    const { container, mounts } = await this.#make(asked)
    const pid = await this.#createTask(container, { asked, mounts })
    const target = await this.host.identify(pid)
    await this.#markMade(container, target)
    // Held before it is started: however soon it ends, how is known.
    await this.context.announce(target)
    await this.containerd.call(TasksService.start, { containerId: id })
    await this.#endInputOfShim(asked)
  }

  /** Snapshot and container. */
  async #make(asked: RunRequest): Promise<{ readonly container: Container; readonly mounts: readonly Mount[] }> {
    const { identity, image: name, rootfs, snapshotter } = asked
    const { id, namespace } = identity
    const shared = { id, namespace, args: asked.args, env: asked.env, rootfs, terminal: asked.terminal }
    const options = { ...RUNC.defaults, noPivotRoot: asked.noPivot }
    const base = { id, image: name ?? '', runtime: { name: RUNC.name, options: encodeRuncOptions(options) } }
    if (name === undefined) {
      const settings = { Env: [], Entrypoint: [], Cmd: [], WorkingDir: '', User: '' }
      const spec = specOf({ ...shared, image: settings, user: { uid: 0, gid: 0, additionalGids: [] } })
      return { container: await this.#createContainer({ ...base, snapshotter: '', snapshotKey: '' }, spec), mounts: [] }
    }
    const image = await findImage(this.containerd, name)
    if (!image) throw imageMissing(this.containerd, name)
    const content = await readImage(this.containerd, image)
    const parent = await unpack(this.containerd, content, snapshotter)
    const { mounts } = await this.containerd.call(SnapshotsService.prepare, { snapshotter, key: id, parent })
    this.#undo.add(() => this.#patient.call(SnapshotsService.remove, { snapshotter, key: id }))
    const spec = specOf({ ...shared, image: content.settings, user: await userOf(this.host, mounts, content.settings.User) })
    return { container: await this.#createContainer({ ...base, snapshotter, snapshotKey: id }, spec), mounts }
  }

  async #createContainer(
    facts: Pick<Container, 'id' | 'image' | 'runtime' | 'snapshotter' | 'snapshotKey'>,
    spec: object,
  ): Promise<Container> {
    const container: Container = {
      ...facts,
      labels: { [MADE_FOR]: BEGUN },
      spec: { typeUrl: SPEC_TYPE, value: Buffer.from(JSON.stringify(spec)) },
      createdAt: undefined,
      updatedAt: undefined,
      extensions: {},
    }
    await this.containerd.call(ContainersService.create, { container })
    this.#undo.add(() => this.#patient.call(ContainersService.delete, { id: facts.id }))
    return container
  }

  /** Undoing it ends and deletes it. */
  async #createTask(
    container: Container,
    { asked, mounts }: { readonly asked: LaunchRequest; readonly mounts: readonly Mount[] },
  ): Promise<number> {
    const containerId = container.id
    this.#undo.add(async () => {
      const ended = this.#patient.call(TasksService.wait, { containerId })
      ended.catch(() => undefined)
      await this.#patient.call(TasksService.kill, { containerId, signal: SIGKILL, all: true }).catch(() => undefined)
      await ended
      await this.#patient.call(TasksService.delete, { containerId })
    })
    const { pid } = await this.containerd.call(TasksService.create, {
      containerId,
      rootfs: [...mounts],
      options: container.runtime?.options,
      terminal: asked.terminal !== undefined,
      ...this.#streams(asked),
    })
    if (asked.terminal) {
      const { columns: width, rows: height } = asked.terminal
      await this.containerd.call(TasksService.resizePty, { containerId, width, height })
    }
    return pid
  }

  /** containerd's shim opens pipes by their names; those of ours are pipes without one, but for that of whoever has them. */
  #streams({ streams, terminal }: LaunchRequest): { stdin: string; stdout: string; stderr: string } {
    if (streams === 'none') return { stdin: '', stdout: '', stderr: '' }
    const [stdin = '', stdout = '', stderr = ''] = [0, 1, 2].map((fd) => `/proc/${this.context.pid}/fd/${fd}`)
    return { stdin, stdout, stderr: terminal ? '' : stderr }
  }

  /** It holds the writing end too, so that a writer may come and go: ours comes once, and its end is the end. */
  async #endInputOfShim({ identity, streams, terminal }: LaunchRequest): Promise<void> {
    if (streams === 'none' || terminal) return
    await this.containerd.call(TasksService.closeIo, { containerId: identity.id, stdin: true })
  }

  async #markMade(container: Container, target: Target): Promise<void> {
    const labels = { ...container.labels, [MADE_FOR]: nameOf(target) }
    await this.containerd.call(ContainersService.update, { container: { ...container, labels }, updateMask: ['labels'] })
  }
}

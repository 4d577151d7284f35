/** Brings the task of a container up, in a process of its own: see `Program.launch`. */
import { createHash, randomBytes } from 'node:crypto'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { CedanaError } from '../contract/errors.js'
import type { Host } from '../contract/host.js'
import type { Target } from '../contract/job.js'
import { patient, withoutLinks } from '../contract/kit.js'
import type { ParsedOptions } from '../contract/options.js'
import type { LaunchContext } from '../contract/runtime.js'
import { Containerd, found, isThereAlready } from './client.js'
import { type Container, ContainersService } from './gen/containers.js'
import { ContentService, WriteAction, type WriteContentRequest } from './gen/content.js'
import { DiffService } from './gen/diff.js'
import { Kind, SnapshotsService } from './gen/snapshots.js'
import { TasksService } from './gen/tasks.js'
import type { Mount } from './gen/types.js'
import { Options } from './gen/runc-options.js'
import { findImage, hasSnapshot, imageMissing, labelsFor, NO_SETTINGS, readImage, unpack } from './images.js'
import { BEGUN, MADE_FOR, nameOf, replacedIn } from './labels.js'
import { leased } from './lease.js'
import { bundlesIn } from './mounts.js'
import { killRestorers, removeCgroups, removeOrphan } from './orphan.js'
import type { LaunchRequest, RestoreRequest, RunRequest } from './request.js'
import type { SavedContainer } from './saved.js'
import { parseSpec, type Spec, specOf } from './spec.js'
import { standIn, STAND_IN } from './stand-in.js'
import { encodeRuncOptions, findContainer, findTask, type Identity, isLive, missing, RUNC, runcOptions } from './state.js'
import { Undo } from './undo.js'
import { userOf } from './users.js'

const SPEC_TYPE = 'types.containerd.io/opencontainers/runtime-spec/1/Spec'
const TAR = 'application/vnd.oci.image.layer.v1.tar'
const SIGKILL = 9
/** How long a task may take to end. */
const END_MS = 3000

/** Annotations by which containerd's shim knows that a container shares it with others. */
const GROUPS = ['io.containerd.runc.v2.group', 'io.kubernetes.cri.sandbox-id']

function isGrouped({ spec }: Container): boolean {
  const { annotations } = parseSpec(spec)
  return GROUPS.some((name) => annotations?.[name] !== undefined)
}

interface Made {
  readonly container: Container
  readonly mounts: readonly Mount[]
}

/** A root file system that is a directory of the host: over itself, so that the bundle is known by the mount. */
const itself = ({ root }: Spec): Mount => ({ type: 'bind', source: root.path, target: '', options: ['rbind', 'rw'] })

export async function launch(host: Host, context: LaunchContext, request: ParsedOptions): Promise<void> {
  const asked = request as unknown as LaunchRequest
  using containerd = new Containerd(asked.identity, host.signal)
  // What is taken back is when nothing else can be done any more.
  using patient = new Containerd(asked.identity)
  const undo = new Undo()
  const launch = new Launch(host, context, containerd, { patient, undo })
  await undo.around(() => (asked.action === 'run' ? launch.run(asked) : launch.restore(asked)))
}

interface Tools {
  readonly patient: Containerd
  readonly undo: Undo
}

class Launch {
  readonly #patient: Containerd
  readonly #patientHost: Host
  readonly #undo: Undo
  /** What nothing needs any more once all has gone well. */
  #superseded = async (): Promise<unknown> => undefined

  constructor(
    private readonly host: Host,
    private readonly context: LaunchContext,
    private readonly containerd: Containerd,
    tools: Tools,
  ) {
    this.#patient = tools.patient
    this.#patientHost = patient(host)
    this.#undo = tools.undo
  }

  async run(asked: RunRequest): Promise<void> {
    const made = await this.#leased(() => this.#make(asked))
    await this.#begin(asked, { ...made, options: runcOptions(made.container) })
  }

  /**
   * Creating the task makes its bundle and mounts its root file system; starting it has the shim call `runc restore`. What the shim takes for
   * runc is a program in the bundle, there as long as the task is, which makes our CRIU and our options known to that one call.
   */
  async restore(asked: RestoreRequest): Promise<void> {
    const { identity, images, work } = asked
    const { container, mounts } = await (asked.isThere ? this.#takeOver(asked) : this.#makeAgain(asked))
    const options = { ...(runcOptions(container) ?? RUNC.defaults), ...(asked.noPivot ? { noPivotRoot: true } : {}) }
    if (!asked.hasProcesses) {
      await this.#begin(asked, { container, mounts, options })
      await this.#superseded()
      return
    }
    const known = await this.#bundleInGroup(container, identity)
    const through = { ...options, binaryName: `${known ?? '.'}/${STAND_IN}`, criuImagePath: images, criuWorkPath: work }
    await this.#createTask(container, { asked, mounts, options: through })
    const bundle = known ?? (await this.#bundleOf(identity, work))
    const runc = { runc: options.binaryName || 'runc', bundle, isElsewhere: known !== undefined }
    await this.#resolveLinks(container, bundle)
    await this.context.writeProgram(`${bundle}/${STAND_IN}`, standIn(runc, { environment: this.context.environment, flags: asked.flags }))
    const { pid } = await this.containerd.call(TasksService.start, { containerId: identity.id })
    await this.context.writeProgram(`${bundle}/${STAND_IN}`, standIn(runc))
    const target = await this.host.identify(pid)
    await Promise.all([asked.isThere ? undefined : this.#markMade(container, target), this.context.announce(target)])
    await this.#endInputOfShim(asked)
    await this.#superseded()
  }

  /** In what runc is given alone: to containerd the container is as it was made. */
  async #resolveLinks({ spec }: Container, bundle: string): Promise<void> {
    const config = parseSpec(spec)
    const mounts = config.mounts ?? []
    const resolved = await withoutLinks(this.host, mounts, bundle)
    if (resolved !== mounts) await this.context.writeFile(`${bundle}/config.json`, JSON.stringify({ ...config, mounts: resolved }))
  }

  async #begin(asked: LaunchRequest, made: Made & { readonly options: Options | undefined }): Promise<void> {
    const { id: containerId } = asked.identity
    const pid = await this.#createTask(made.container, { asked, ...made })
    if (asked.terminal) {
      const { columns: width, rows: height } = asked.terminal
      await this.containerd.call(TasksService.resizePty, { containerId, width, height })
    }
    const target = await this.host.identify(pid)
    if (made.container.labels[MADE_FOR] === BEGUN) await this.#markMade(made.container, target)
    // Held before it is started: however soon it ends, how is known.
    await this.context.announce(target)
    await this.containerd.call(TasksService.start, { containerId })
    await this.#endInputOfShim(asked)
  }

  /** The container that was dumped, or one of its name, whose task has ended. */
  async #takeOver({ identity, spec, layer }: RestoreRequest): Promise<Made> {
    const container = await findContainer(this.containerd, identity.id)
    if (!container) throw missing(identity)
    const { snapshotter, snapshotKey: key } = container
    if (key === '') return { container, mounts: [itself(spec)] }
    if (layer === undefined)
      return { container, mounts: (await this.containerd.call(SnapshotsService.mounts, { snapshotter, key })).mounts }
    return this.#leased(() => this.#withLayer(container, layer))
  }

  /** What was written since the dump makes place for what had been written then; until all has gone well it is kept. */
  async #withLayer(container: Container, layer: string): Promise<Made> {
    const { id, snapshotter, snapshotKey: former } = container
    const { info } = await this.containerd.call(SnapshotsService.stat, { snapshotter, key: former })
    const key = `${id}-${randomBytes(4).toString('hex')}`
    const label = replacedIn(snapshotter)
    const mounts = await this.#prepare(key, snapshotter, info?.parent ?? '', { [label]: former })
    await this.#apply(layer, mounts)
    const point = (client: Containerd, snapshotKey: string): Promise<unknown> =>
      client.call(ContainersService.update, { container: { ...container, snapshotKey }, updateMask: ['snapshotkey'] })
    await point(this.containerd, key)
    this.#undo.add(() => point(this.#patient, former))
    this.#superseded = async () => {
      await found(this.#patient.call(SnapshotsService.remove, { snapshotter, key: former }))
      const unlabelled = { name: key, parent: '', kind: Kind.UNKNOWN, createdAt: undefined, updatedAt: undefined, labels: {} }
      await this.#patient.call(SnapshotsService.update, { snapshotter, info: unlabelled, updateMask: [`labels.${label}`] })
    }
    return { container: { ...container, snapshotKey: key }, mounts }
  }

  /** Through containerd's store of content, which is where it takes layers from. */
  async #apply(path: string, mounts: readonly Mount[]): Promise<void> {
    const parts = this.context.read(path)
    const ref = `cedana-layer-${randomBytes(8).toString('hex')}`
    const hash = createHash('sha256')
    let size = 0
    const requests = async function* (): AsyncGenerator<Partial<WriteContentRequest>> {
      for await (const part of parts) {
        yield { action: WriteAction.WRITE, ref, offset: size, data: Buffer.from(part) }
        hash.update(part)
        size += part.length
      }
      yield { action: WriteAction.COMMIT, ref, offset: size, total: size }
    }
    await this.containerd.upload(ContentService.write, requests()).catch((thrown: unknown) => {
      if (!isThereAlready(thrown)) throw thrown
    })
    const diff = { mediaType: TAR, digest: `sha256:${hash.digest('hex')}`, size, annotations: {} }
    await this.containerd.call(DiffService.apply, { diff, mounts: [...mounts] })
  }

  async #makeAgain({ identity, container: saved, spec, layer }: RestoreRequest): Promise<Made> {
    const { id } = identity
    const { image, snapshotter, runtime: name, labels } = saved
    const options = encodeRuncOptions(Options.decode(Buffer.from(saved.options, 'base64')))
    const base = { id, image, runtime: { name, options } }
    if (saved.snapshotKey === '') {
      const container = await this.#createContainer({ ...base, snapshotter: '', snapshotKey: '' }, spec, labels)
      return { container, mounts: [itself(spec)] }
    }
    const parent = await this.#baseOf(saved)
    // Before its snapshot, which then is somebody's from its first moment on and needs no lease: each takes containerd two writes to its disk.
    const container = await this.#createContainer({ ...base, snapshotter, snapshotKey: id }, spec, labels)
    const mounts = await this.#prepare(id, snapshotter, parent)
    if (layer !== undefined) await this.#leased(() => this.#apply(layer, mounts))
    return { container, mounts }
  }

  /** Of an image that is there but has not been unpacked, the layers are now. */
  async #baseOf({ image: name, snapshotter, parent }: SavedContainer): Promise<string> {
    if (parent === '' || (await hasSnapshot(this.containerd, snapshotter, parent))) return parent
    const image = await findImage(this.containerd, name)
    if (!image) throw imageMissing(this.containerd, name)
    return this.#leased(async () => unpack(this.containerd, await readImage(this.containerd, image), snapshotter))
  }

  #leased<T>(work: () => Promise<T>): Promise<T> {
    return leased({ host: this.host, containerd: this.containerd, patient: this.#patient }, work)
  }

  async #prepare(
    key: string,
    snapshotter: string,
    parent: string,
    labels: Readonly<Record<string, string>> = {},
  ): Promise<readonly Mount[]> {
    const { mounts } = await this.containerd.call(SnapshotsService.prepare, { snapshotter, key, parent, labels })
    this.#undo.add(() => this.#patient.call(SnapshotsService.remove, { snapshotter, key }))
    return mounts
  }

  /** containerd does not say where it is: the root file system is mounted in it, and the shim's options, which lie there, name our directory. */
  async #bundleOf({ namespace, id }: Identity, work: string): Promise<string> {
    for (const [bundle, of] of await bundlesIn(this.host, namespace))
      if (of === id && (await this.host.readText(`${bundle}/options.json`))?.includes(JSON.stringify(work)) === true) return bundle
    throw new CedanaError('HOST_UNFIT', `the bundle of container ${id} was not found`, {
      hint: 'containerd and the daemon must see the same mounts',
    })
  }

  /**
   * The shim that runs a whole pod works in the bundle of the first of its containers: what it is to call for another has to be named by its whole
   * path before that one's bundle is there. It will be beside those of tasks that are; without any the shim is made for this one, and works there.
   */
  async #bundleInGroup(container: Container, { namespace, id }: Identity): Promise<string | undefined> {
    if (!isGrouped(container)) return undefined
    const { tasks } = await this.containerd.call(TasksService.list, {})
    const pids = new Map(tasks.map((task) => [task.id, String(task.pid)]))
    for (const [bundle, of] of await bundlesIn(this.host, namespace)) {
      const pid = pids.get(of)
      if (pid !== undefined && (await this.host.readText(`${bundle}/init.pid`))?.trim() === pid) return `${dirname(bundle)}/${id}`
    }
    return undefined
  }

  /** Snapshot and container. */
  async #make(asked: RunRequest): Promise<Made> {
    const { identity, image: name, rootfs, snapshotter } = asked
    const { id, namespace } = identity
    const shared = { id, namespace, args: asked.args, env: asked.env, rootfs, terminal: asked.terminal, edits: asked.edits }
    const options = { ...RUNC.defaults, noPivotRoot: asked.noPivot }
    const base = { id, image: name ?? '', runtime: { name: RUNC.name, options: encodeRuncOptions(options) } }
    if (name === undefined) {
      const spec = specOf({ ...shared, image: NO_SETTINGS, user: { uid: 0, gid: 0, additionalGids: [] } })
      return { container: await this.#createContainer({ ...base, snapshotter: '', snapshotKey: '' }, spec), mounts: [] }
    }
    const image = await findImage(this.containerd, name)
    if (!image) throw imageMissing(this.containerd, name)
    const content = await readImage(this.containerd, image)
    const parent = await unpack(this.containerd, content, snapshotter)
    const mounts = await this.#prepare(id, snapshotter, parent)
    const spec = specOf({ ...shared, image: content.settings, user: await userOf(this.host, mounts, content.settings.User) })
    const labels = labelsFor(content.settings)
    return { container: await this.#createContainer({ ...base, snapshotter, snapshotKey: id }, spec, labels), mounts }
  }

  async #createContainer(
    facts: Pick<Container, 'id' | 'image' | 'runtime' | 'snapshotter' | 'snapshotKey'>,
    spec: object,
    labels: Readonly<Record<string, string>> = {},
  ): Promise<Container> {
    const container: Container = {
      ...facts,
      labels: { ...labels, [MADE_FOR]: BEGUN },
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
    { asked, mounts, options }: { readonly asked: LaunchRequest; readonly mounts: readonly Mount[]; readonly options: Options | undefined },
  ): Promise<number> {
    const containerId = container.id
    await this.#removeFormer(container, asked.identity)
    let isOurs = true
    this.#undo.add(async () => {
      if (isOurs) await this.#removeTask(container, asked.identity)
    })
    try {
      const { pid } = await this.containerd.call(TasksService.create, {
        containerId,
        rootfs: [...mounts],
        options: options && encodeRuncOptions(options),
        terminal: asked.terminal !== undefined,
        ...this.#streams(asked),
      })
      return pid
    } catch (thrown) {
      isOurs = !isThereAlready(thrown)
      throw thrown
    }
  }

  /** A task that has ended, or whose start was broken off, and what runc has kept of one. */
  async #removeFormer(container: Container, identity: Identity): Promise<void> {
    const former = await findTask(this.containerd, container.id)
    if (former && !isLive(former)) await found(this.containerd.call(TasksService.delete, { containerId: container.id }))
    await removeOrphan(this.host, identity, container)
  }

  /** One that was never started cannot be waited for, and one that was takes a moment to be seen dead. */
  async #removeTask(container: Container, identity: Identity): Promise<void> {
    await this.#deleteTask(container, identity)
    await removeOrphan(this.#patientHost, identity, container)
    await removeCgroups(this.#patientHost, identity, container)
  }

  async #deleteTask(container: Container, identity: Identity): Promise<void> {
    const containerId = container.id
    await this.#patient.call(TasksService.kill, { containerId, signal: SIGKILL, all: true }).catch(() => undefined)
    for (const until = Date.now() + END_MS; ; await sleep(20)) {
      try {
        await found(this.#patient.call(TasksService.delete, { containerId }))
        return
      } catch (thrown) {
        if (Date.now() > until) throw thrown
        // Its shim is still at the restore, which nobody waits for any more, and deletes nothing before that has ended.
        await killRestorers(this.#patientHost, identity, container)
      }
    }
  }

  /** containerd's shim opens pipes by their names; those of ours are pipes without one, but for that of whoever has them. */
  #streams({ streams, terminal }: LaunchRequest): { stdin: string; stdout: string; stderr: string } {
    if (streams !== 'own') {
      const logUri = streams === 'none' ? '' : streams.logUri
      return { stdin: '', stdout: logUri, stderr: terminal ? '' : logUri }
    }
    const [stdin = '', stdout = '', stderr = ''] = [0, 1, 2].map((fd) => `/proc/${this.context.pid}/fd/${fd}`)
    return { stdin, stdout, stderr: terminal ? '' : stderr }
  }

  /** It holds the writing end too, so that a writer may come and go: ours comes once, and its end is the end. */
  async #endInputOfShim({ identity, streams, terminal }: LaunchRequest): Promise<void> {
    if (streams !== 'own' || terminal) return
    await this.containerd.call(TasksService.closeIo, { containerId: identity.id, stdin: true })
  }

  async #markMade(container: Container, target: Target): Promise<void> {
    const labels = { ...container.labels, [MADE_FOR]: nameOf(target) }
    await this.containerd.call(ContainersService.update, { container: { ...container, labels }, updateMask: ['labels'] })
  }
}

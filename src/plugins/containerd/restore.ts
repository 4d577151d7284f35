import type { z } from 'zod'
import { CedanaError } from '../contract/errors.js'
import type { Host } from '../contract/host.js'
import type { Snapshot } from '../contract/job.js'
import { restoredBy } from '../contract/kit.js'
import { CONFIG_DUMP, type ContainerDump, type Problem, type RestorePlan } from '../contract/plan.js'
import { type RestoreContext, runcRestoreFlags } from '../contract/runtime.js'
import type { Containerd } from './client.js'
import { findImage, hasSnapshot, imageMissing, readImage } from './images.js'
import type { RestoreOptions } from './options.js'
import type { RestoreRequest } from './request.js'
import { forbidden } from './run.js'
import { LAYER, type ReadContainer, type SavedContainer, savedContainer } from './saved.js'
import { named, type Spec } from './spec.js'
import { connect, findContainer, findTask, type Identity, identityOf, isLive } from './state.js'

const USUAL_SIZE = { rows: 24, columns: 80 }
type Options = z.output<typeof RestoreOptions>

/**
 * As a task of containerd, which has its shim run `runc restore`: afterwards it is one like any other. A container of that name whose task has
 * ended is taken for the one that was dumped, with its writable layer as it is; without one it is made again.
 */
export async function restore(host: Host, context: RestoreContext, options: Options): Promise<RestorePlan> {
  const saved = await savedContainer(context)
  const former = await formerIdentity(context)
  const { id = former.id, address = former.address, namespace = former.namespace } = options
  const identity = identityOf({ id, address, namespace })
  const own = isOurs(context) ? saved : { ...saved, ...ofItsOwn(saved) }
  const spec = named(withEnvironment(own.spec, options.env), { from: former, to: identity })
  const inner = saved.container.hasProcesses
    ? await host.delegate<RestorePlan>('runc', 'restore', { ...context, identity: saved.runc(former) }, {})
    : { criu: {}, inherit: [], setup: [], problems: [] }
  const container = { ...own.container, image: options.image ?? own.container.image }
  const base = await baseOf(host, identity, { ...container, isChosen: options.image !== undefined })
  const terminal = hasTerminal(context.snapshot, spec)
  const { now } = context.stdio
  const { logUri } = container
  const isLogged = now === 'none' && logUri !== ''
  const request: RestoreRequest = {
    action: 'restore',
    identity,
    container,
    spec,
    isThere: base.isThere,
    noPivot: options.noPivot,
    images: context.images,
    work: context.work,
    flags: runcRestoreFlags(context.switches),
    hasProcesses: container.hasProcesses,
    layer: container.hasLayer ? `${context.images}/${LAYER}` : undefined,
    terminal: terminal ? USUAL_SIZE : undefined,
    streams: isLogged ? { logUri } : now !== 'none' || terminal ? 'own' : 'none',
  }
  const { program } = restoredBy(context, { argv: [container.image], request: { ...request }, identity: { ...identity } })
  return {
    criu: inner.criu,
    // Its streams are those that its shim has.
    inherit: inner.inherit.filter(({ from }) => 'path' in from),
    setup: inner.setup,
    // What is in the way is known better here.
    problems: [...forbidden(context), ...inner.problems.filter(({ id: what }) => what !== 'container-exists'), ...base.problems],
    program: {
      ...program,
      streams: { stdio: terminal && !isLogged && now !== 'inherit' ? 'tty' : now === 'log' ? 'pipe' : now },
    },
  }
}

const isOurs = ({ identity }: RestoreContext): boolean => identity['id'] !== undefined

/** Of a container that a kubelet had made only its id is known: it comes back as one of its own, by default in the default namespace. */
async function formerIdentity(context: RestoreContext): Promise<Identity> {
  if (isOurs(context)) return identityOf(context.identity)
  const config = JSON.parse(Buffer.from((await context.attachment(CONFIG_DUMP)) ?? '{}').toString()) as Partial<ContainerDump>
  return identityOf({ id: config.id })
}

/** By these the CRI would take it for one of a pod's, and containerd would have the shim of the pod run it. */
const IS_OF_POD = /^io\.(cri-containerd\.|kubernetes\.cri\.sandbox-id$)/

function ofItsOwn({ container, spec }: ReadContainer): Pick<ReadContainer, 'container' | 'spec'> {
  const others = (entries: Readonly<Record<string, string>>): Record<string, string> =>
    Object.fromEntries(Object.entries(entries).filter(([name]) => !IS_OF_POD.test(name)))
  return { container: { ...container, labels: others(container.labels) }, spec: { ...spec, annotations: others(spec.annotations ?? {}) } }
}

/** For what is started in it later: its processes have theirs. */
const withEnvironment = (spec: Spec, env: readonly string[]): Spec => ({
  ...spec,
  process: { ...spec.process, env: [...(spec.process.env ?? []), ...env] },
})

function hasTerminal({ processes: [root], mounts }: Snapshot, spec: Spec): boolean {
  if (!root) return spec.process.terminal ?? false
  const inside = new Set(mounts.map(({ id }) => id))
  return root.files.some(({ fd, isTty, mountId }) => fd <= 2 && isTty && inside.has(mountId))
}

interface Base {
  /** A container of that name is there, and does not run. */
  readonly isThere: boolean
  readonly problems: readonly Problem[]
}

/** Of a container with this image under it, which the request may have named. */
type WantedContainer = SavedContainer & { readonly isChosen: boolean }

async function baseOf(host: Host, identity: Identity, container: WantedContainer): Promise<Base> {
  using containerd = connect(host, identity)
  const problems: Problem[] = []
  const add = (id: string, message: string, hint: string): void => void problems.push({ severity: 'error', id, message, hint })
  const isThere = (await findContainer(containerd, identity.id)) !== undefined
  if (isLive(await findTask(containerd, identity.id)))
    add('container-exists', `container ${identity.id} runs already`, 'end that one first, or choose another id with --id')
  if (!isThere && container.snapshotKey !== '') {
    const wrong = await missingBase(containerd, container)
    if (wrong) add('image-missing', wrong.message, wrong.hint ?? '')
  }
  if (!isThere && container.snapshotKey !== '' && !container.hasLayer)
    problems.push({
      severity: 'warning',
      id: 'layer-missing',
      message: 'what the container had written to its root file system is not in the checkpoint',
      hint: 'dump with --rootfs',
    })
  return { isThere, problems }
}

/** What stands in the way of a root file system like the one it had; undefined: nothing. */
async function missingBase(
  containerd: Containerd,
  { image: name, snapshotter, parent, isChosen }: WantedContainer,
): Promise<CedanaError | undefined> {
  const image = name === '' ? undefined : await findImage(containerd, name)
  if (!image && isChosen) return imageMissing(containerd, name)
  if (!image) return (await hasSnapshot(containerd, snapshotter, parent)) ? undefined : imageMissing(containerd, name)
  const { chain } = await readImage(containerd, image)
  if (chain.at(-1) === parent) return undefined
  return new CedanaError('TARGET_UNFIT', `image ${name} is not the one that the container was made of`, {
    hint: 'fetch the version it was made of, and name it with --image',
  })
}

/** What a checkpoint tells of a container of containerd, beside its processes. */
import { z } from 'zod'
import { CedanaError } from '../contract/errors.js'
import type { Host } from '../contract/host.js'
import { type ContainerDump, SPEC_DUMP } from '../contract/plan.js'
import type { ParsedOptions } from '../contract/options.js'
import type { RestoreContext } from '../contract/runtime.js'
import { Options } from './gen/runc-options.js'
import { SnapshotsService } from './gen/snapshots.js'
import { found } from './client.js'
import { findImage } from './images.js'
import { connect, findContainer, findTask, type Identity, missing, runcIdentity, runcName, runcOptions } from './state.js'
import { parseSpec, Spec } from './spec.js'

export const SAVED = 'containerd.json'
/** The writable layer, as one more layer of an image. */
export const LAYER = 'rootfs-diff.tar'

const Saved = z.object({
  image: z.string(),
  runtime: z.string(),
  /** Of runc behind containerd, as protobuf in base64. */
  options: z.string(),
  labels: z.record(z.string(), z.string()),
  snapshotter: z.string(),
  /** Empty where the root file system is no snapshot. */
  snapshotKey: z.string(),
  /** The snapshot below the writable layer: what the layers of the image add up to. */
  parent: z.string(),
  /** What its output went to, where that is a file or a program that containerd's shim writes to; else empty. */
  logUri: z.string().default(''),
  /** What the checkpoint holds. */
  hasProcesses: z.boolean(),
  hasLayer: z.boolean(),
})
export type SavedContainer = z.output<typeof Saved>

export interface LiveContainer {
  readonly container: Omit<SavedContainer, 'hasProcesses' | 'hasLayer'>
  readonly spec: Spec
  /** What the runc plugin knows it by. */
  readonly runc: ParsedOptions
  /** As other engines tell of it. */
  readonly config: ContainerDump
}

/** Loggers that have a name by which anybody can open them again; others are pipes of whoever has started the task. */
const isLogger = (uri: string): boolean => /^(binary|file):\/\//.test(uri)

export async function lookAt(host: Host, identity: Identity): Promise<LiveContainer> {
  using containerd = connect(host, identity)
  const [container, task] = await Promise.all([findContainer(containerd, identity.id), findTask(containerd, identity.id)])
  if (!container) throw missing(identity)
  const runc = runcIdentity(identity, container)
  const { image, labels, snapshotter, snapshotKey, runtime } = container
  const [snapshot, base] = await Promise.all([
    snapshotKey === '' ? undefined : found(containerd.call(SnapshotsService.stat, { snapshotter, key: snapshotKey })),
    image === '' ? undefined : findImage(containerd, image),
  ])
  const options = Options.encode(runcOptions(container) ?? Options.decode(new Uint8Array())).finish()
  const digest = base?.target?.digest
  return {
    runc,
    config: {
      id: identity.id,
      name: identity.id,
      runtime: runtime?.name ?? '',
      createdTime: container.createdAt?.toISOString() ?? '',
      ...(image === '' ? {} : { rootfsImageName: image }),
      ...(digest === undefined ? {} : { rootfsImageRef: digest }),
    },
    spec: parseSpec(container.spec),
    container: {
      image,
      runtime: runtime?.name ?? '',
      options: Buffer.from(options).toString('base64'),
      labels,
      snapshotter,
      snapshotKey,
      parent: snapshot?.info?.parent ?? '',
      logUri: task && isLogger(task.stdout) ? task.stdout : '',
    },
  }
}

export interface ReadContainer {
  readonly container: SavedContainer
  readonly spec: Spec
  /** What the runc plugin knew it by. */
  runc(identity: Identity): ParsedOptions
}

/** Throws TARGET_UNFIT for a checkpoint of anything else. */
export async function savedContainer(context: RestoreContext): Promise<ReadContainer> {
  const [saved, spec] = await Promise.all([SAVED, SPEC_DUMP].map((name) => context.attachment(name)))
  if (saved === undefined)
    throw new CedanaError('TARGET_UNFIT', 'the checkpoint is not one that cedana made of a container of containerd', {
      hint: 'one of another container is restored by: cedana restore runc --bundle DIR --path CHECKPOINT',
    })
  try {
    const parse = (bytes: Uint8Array | undefined): unknown => JSON.parse(Buffer.from(bytes ?? []).toString())
    const container = Saved.parse(parse(saved))
    const options = Options.decode(Buffer.from(container.options, 'base64'))
    return { container, spec: Spec.parse(parse(spec)), runc: (identity) => runcName(identity, options) }
  } catch (cause) {
    throw new CedanaError('IMAGE_CORRUPT', 'the checkpoint does not say what its container was', { cause, hint: 'use another checkpoint' })
  }
}

import type { z } from 'zod'
import type { CedanaError } from '../contract/errors.js'
import type { Host } from '../contract/host.js'
import { type Attachment, CONFIG_DUMP, type DumpPlan, type Problem, SPEC_DUMP } from '../contract/plan.js'
import type { DumpContext } from '../contract/runtime.js'
import { findImage, imageMissing } from './images.js'
import type { DumpOptions } from './options.js'
import { lookAt, SAVED, type LiveContainer, type SavedContainer } from './saved.js'
import { connect, type Identity, identityOf } from './state.js'

type Options = z.output<typeof DumpOptions>

/** The processes as runc's own plan has them, since it is runc that runs them; and what containerd knows, to make such a container again. */
export async function dump(host: Host, context: DumpContext, options: Options): Promise<DumpPlan> {
  const identity = identityOf(context.identity)
  const live = await lookAt(host, identity)
  const inner = await host.delegate<DumpPlan>('runc', 'dump', { ...context, identity: live.runc }, {})
  const { rootfs, rootfsOnly } = options
  const container: SavedContainer = { ...live.container, hasProcesses: !rootfsOnly, hasLayer: rootfs || rootfsOnly }
  const own: readonly Attachment[] = [
    { name: SAVED, content: json(container) },
    { name: SPEC_DUMP, content: json(live.spec) },
    { name: CONFIG_DUMP, content: json(live.config) },
  ]
  const others = inner.attachments.filter(({ name }) => !own.some((one) => one.name === name))
  return {
    criu: inner.criu,
    attachments: [...(rootfsOnly ? [] : others), ...own],
    problems: [...(rootfsOnly ? [] : inner.problems), ...(await layerProblems(host, identity, live, options))],
    ...(container.hasLayer ? { save: rootfsOnly ? 'only' : 'also' } : {}),
  }
}

const json = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value))

async function layerProblems(
  host: Host,
  identity: Identity,
  { container: { image, snapshotKey } }: LiveContainer,
  { rootfs, rootfsOnly, image: made }: Options,
): Promise<readonly Problem[]> {
  if (!rootfs && !rootfsOnly) return []
  const problem = (id: string, { message, hint = '' }: Pick<CedanaError, 'message' | 'hint'>): Problem => ({
    severity: 'error',
    id,
    message,
    hint,
  })
  if (snapshotKey === '')
    return [
      problem('no-writable-layer', { message: `container ${identity.id} has no writable layer of its own`, hint: 'leave --rootfs out' }),
    ]
  if (made === undefined) return []
  using containerd = connect(host, identity)
  if (await findImage(containerd, made))
    return [problem('image-exists', { message: `image ${made} exists already`, hint: 'choose another name with --image' })]
  return (await findImage(containerd, image)) ? [] : [problem('image-missing', imageMissing(containerd, image))]
}

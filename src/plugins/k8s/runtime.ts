import type { Host } from '../contract/host.js'
import { delegated } from '../contract/kit.js'
import type { ParsedOptions } from '../contract/options.js'
import { type Attachment, CONFIG_DUMP, type ContainerDump, type DumpPlan } from '../contract/plan.js'
import type { DumpContext, SaveContext } from '../contract/runtime.js'
import type { ContainerStatus } from './gen/cri.js'
import type { DumpOptions } from './options.js'
import { query } from './query.js'
import { containerdIdentity, lookAt, resolve } from './state.js'

const { freeze, unfreeze } = delegated('containerd', async (_host, identity) => containerdIdentity(identity))

const inContainerd = ({ rootfs }: DumpOptions): ParsedOptions => ({ rootfs, rootfsOnly: false, image: undefined })

async function dump(host: Host, context: DumpContext, options: DumpOptions): Promise<DumpPlan> {
  const { status } = await lookAt(host, context.identity)
  const { metadata, image, imageRef } = status
  const asked = { ...context, identity: containerdIdentity(context.identity) }
  const plan = await host.delegate<DumpPlan>('containerd', 'dump', asked, inContainerd(options))
  const described = { name: metadata?.name ?? '', rootfsImageName: image?.image ?? '', rootfsImageRef: imageRef }
  const attachments = plan.attachments.map((one) => (one.name === CONFIG_DUMP ? withNames(one, described) : one))
  return { ...plan, attachments: [...attachments, { name: STATUS_DUMP, content: Buffer.from(JSON.stringify(asJson(status))) }] }
}

/** What the CRI says of it, as containerd's wants it back where it restores a container. */
const STATUS_DUMP = 'status.dump'
const asJson = ({ id, metadata, state, createdAt, image, imageRef, labels, annotations, logPath }: ContainerStatus): object => ({
  ...{ id, metadata, state, image, labels, annotations },
  created_at: Number(createdAt),
  image_ref: imageRef,
  log_path: logPath,
})

/** containerd knows neither the name of the container in its pod, nor what its kubelet calls the image. */
const withNames = ({ name, content }: Attachment, names: Partial<ContainerDump>): Attachment => ({
  name,
  content: Buffer.from(JSON.stringify({ ...(JSON.parse(Buffer.from(content).toString()) as ContainerDump), ...names })),
})

/**
 * A container of a pod is one of containerd whose namespaces are those of its sandbox. Its end is a matter of its kubelet, which starts another when it
 * has been killed, and of nobody else: there is nothing to be removed here. Checked against the manifest's claims where plugin.ts loads it.
 */
export const runtime = {
  resolve,
  query,
  dump,
  save: async (host: Host, context: SaveContext, options: DumpOptions): Promise<() => Promise<void>> =>
    host.delegate('containerd', 'save', { ...context, identity: containerdIdentity(context.identity) }, inContainerd(options)),
  freeze,
  unfreeze,
}

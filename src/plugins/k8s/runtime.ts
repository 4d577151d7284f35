import type { Host } from '../contract/host.js'
import type { Target } from '../contract/job.js'
import type { ParsedOptions } from '../contract/options.js'
import { type Attachment, CONFIG_DUMP, type ContainerDump, type DumpPlan } from '../contract/plan.js'
import type { DumpContext } from '../contract/runtime.js'
import { query } from './query.js'
import { lookAt, resolve, runcIdentity } from './state.js'

const delegated =
  (verb: 'freeze' | 'unfreeze') =>
  async (host: Host, target: Target, identity: ParsedOptions): Promise<void> =>
    host.delegate('runc', verb, target, await runcIdentity(host, identity))

/**
 * A container of a pod is one of runc whose namespaces are those of its sandbox. Its end is a matter of its kubelet, which starts another when it has
 * been killed, and of nobody else: there is nothing to be removed here. Checked against the manifest's claims where plugin.ts loads it.
 */
export const runtime = {
  resolve,
  query,
  freeze: delegated('freeze'),
  unfreeze: delegated('unfreeze'),
  dump: async (host: Host, context: DumpContext): Promise<DumpPlan> => {
    const plan = await host.delegate<DumpPlan>('runc', 'dump', { ...context, identity: await runcIdentity(host, context.identity) }, {})
    const { metadata, image, imageRef } = (await lookAt(host, context.identity)).status
    const described = { name: metadata?.name ?? '', rootfsImageName: image?.image ?? '', rootfsImageRef: imageRef }
    return { ...plan, attachments: plan.attachments.map((one) => (one.name === CONFIG_DUMP ? withNames(one, described) : one)) }
  },
}

/** runc knows neither the name of the container nor of what image it is. */
const withNames = ({ name, content }: Attachment, names: Partial<ContainerDump>): Attachment => ({
  name,
  content: Buffer.from(JSON.stringify({ ...(JSON.parse(Buffer.from(content).toString()) as ContainerDump), ...names })),
})

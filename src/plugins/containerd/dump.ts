import type { Host } from '../contract/host.js'
import { CONFIG_DUMP, type DumpPlan, SPEC_DUMP } from '../contract/plan.js'
import type { DumpContext } from '../contract/runtime.js'
import { lookAt, SAVED } from './saved.js'
import { identityOf } from './state.js'

/** The processes as runc's own plan has them, since it is runc that runs them; and what containerd knows, to make such a container again. */
export async function dump(host: Host, context: DumpContext): Promise<DumpPlan> {
  const { container, spec, config, runc } = await lookAt(host, identityOf(context.identity))
  const inner = await host.delegate<DumpPlan>('runc', 'dump', { ...context, identity: runc }, {})
  const own = [
    { name: SAVED, content: json(container) },
    { name: SPEC_DUMP, content: json(spec) },
    { name: CONFIG_DUMP, content: json(config) },
  ]
  const others = inner.attachments.filter(({ name }) => !own.some((one) => one.name === name))
  return { ...inner, attachments: [...others, ...own] }
}

const json = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value))

import type { z } from 'zod'
import { CedanaError } from '../contract/errors.js'
import type { Host } from '../contract/host.js'
import { launchedBy, userOf } from '../contract/kit.js'
import type { Problem, RunPlan } from '../contract/plan.js'
import type { RunContext } from '../contract/runtime.js'
import { type ContainerEdits, editsFor, NO_EDITS } from './cdi.js'
import { findImage, imageMissing } from './images.js'
import type { RunOptions } from './options.js'
import type { RunRequest } from './request.js'
import { connect, findContainer, identityOf } from './state.js'

const USUAL_SIZE = { rows: 24, columns: 80 }

/**
 * The container is containerd's, and its shim's child. Ours brings it up by a launcher and keeps the other ends of its streams: neither the end of
 * this daemon nor that of containerd's changes anything for it.
 */
export async function run(host: Host, context: RunContext, options: z.output<typeof RunOptions>): Promise<RunPlan> {
  const { address, namespace, image } = options
  const identity = identityOf({ id: options.id ?? context.jid, address, namespace })
  const devices = await devicesFor(host, options.gpus)
  const request: RunRequest = {
    action: 'run',
    identity,
    ...(image.startsWith('/') ? { rootfs: image } : { image }),
    args: options.args,
    env: options.env,
    noPivot: options.noPivot,
    snapshotter: options.snapshotter,
    edits: devices.edits,
    terminal: context.stdio === 'tty' ? (context.windowSize ?? USUAL_SIZE) : undefined,
    streams: context.stdio === 'none' ? 'none' : 'own',
  }
  return {
    argv: [image, ...options.args],
    ...launchedBy(context, { ...request }),
    environment: context.environment,
    workingDirectory: '/',
    user: userOf(context),
    identity: { ...identity },
    streams: { stdio: context.stdio === 'log' ? 'pipe' : context.stdio },
    problems: [...forbidden(context), ...devices.problems, ...(await runProblems(host, request))],
  }
}

export function forbidden({ caller }: Pick<RunContext, 'caller'>): readonly Problem[] {
  if (caller.uid === 0) return []
  return [{ severity: 'error', id: 'not-root', message: 'only root may make a container of containerd', hint: 'use sudo' }]
}

async function devicesFor(
  host: Host,
  names: readonly string[],
): Promise<{ readonly edits: ContainerEdits; readonly problems: readonly Problem[] }> {
  try {
    return { edits: await editsFor(host, names), problems: [] }
  } catch (thrown) {
    const { message, hint = '' } = CedanaError.from(thrown)
    return { edits: NO_EDITS, problems: [{ severity: 'error', id: 'device-not-described', message, hint }] }
  }
}

async function runProblems(host: Host, { identity, image, rootfs }: RunRequest): Promise<readonly Problem[]> {
  using containerd = connect(host, identity)
  const problems: Problem[] = []
  const add = (id: string, message: string, hint: string): void => void problems.push({ severity: 'error', id, message, hint })
  if (await findContainer(containerd, identity.id))
    add('container-exists', `container ${identity.id} exists already`, 'choose another --id, or delete that one first')
  if (image !== undefined && !(await findImage(containerd, image))) {
    const { message, hint = '' } = imageMissing(containerd, image)
    add('image-missing', message, hint)
  }
  if (rootfs !== undefined && !(await host.exists(rootfs)))
    add('rootfs-missing', `there is no root file system ${rootfs}`, 'name a directory, or an image')
  return problems
}

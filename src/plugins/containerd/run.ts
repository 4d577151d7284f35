import type { z } from 'zod'
import type { Host } from '../contract/host.js'
import type { Problem, RunPlan } from '../contract/plan.js'
import type { RunContext } from '../contract/runtime.js'
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
  const { uid, gid, groups } = context.caller
  const log = `${context.directory}/launcher.log`
  const pidFile = `${context.directory}/pid`
  const request: RunRequest = {
    action: 'run',
    identity,
    ...(image.startsWith('/') ? { rootfs: image } : { image }),
    args: options.args,
    env: options.env,
    noPivot: options.noPivot,
    snapshotter: options.snapshotter,
    terminal: context.stdio === 'tty' ? (context.windowSize ?? USUAL_SIZE) : undefined,
    streams: context.stdio === 'none' ? 'none' : 'own',
  }
  return {
    argv: [image, ...options.args],
    launch: { ...request },
    launcher: { pidFile, log, foreign: true },
    environment: context.environment,
    workingDirectory: '/',
    user: { uid, gid, groups },
    identity: { ...identity },
    streams: { stdio: context.stdio === 'log' ? 'pipe' : context.stdio },
    problems: [...forbidden(context), ...withoutGpus(options.gpus), ...(await runProblems(host, request))],
  }
}

export function forbidden({ caller }: Pick<RunContext, 'caller'>): readonly Problem[] {
  if (caller.uid === 0) return []
  return [{ severity: 'error', id: 'not-root', message: 'only root may make a container of containerd', hint: 'use sudo' }]
}

/** Which files of the driver a container needs is NVIDIA's own tools' to say (CDI). */
function withoutGpus(gpus: readonly number[]): readonly Problem[] {
  if (gpus.length === 0) return []
  const message = 'a container of containerd cannot be given GPUs by cedana'
  const hint = 'make it with them (nerdctl run --gpus, ctr run --gpus) and manage it: it is dumped and restored with its GPUs'
  return [{ severity: 'error', id: 'gpus-not-given', message, hint }]
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

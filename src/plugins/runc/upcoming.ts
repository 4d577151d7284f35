/** `manage --upcoming`: waits for a container up to its first moment, when its init executes the program. */
import type { Host, ProcessBrief } from '../contract/host.js'
import type { Target } from '../contract/job.js'
import type { ParsedOptions } from '../contract/options.js'
import { findInit, type Identity, identityOf, type Init, isCrun } from './state.js'

/**
 * Until then its init is a copy of the runtime: runc's is known by the name it gives itself, crun's by the arguments it was called with. One without
 * arguments is in the middle of its exec, whose name the kernel sets before its arguments, or is being killed.
 */
const isRuntimeItself = ({ name, args }: ProcessBrief, { id, runtime }: Identity): boolean =>
  args.length === 0 ||
  (isCrun(runtime) ? args.at(-1) === id && (args.includes('run') || args.includes('create')) : name.startsWith('runc:['))

/** Undefined while it waits to be started, and when it has died. */
async function started(host: Host, identity: Identity, init: Init): Promise<Target | undefined> {
  const brief = await host.brief(init.pid)
  if (brief?.target.startTicks !== init.startTicks || brief.state === 'Z' || brief.state === 'X') return undefined
  return isRuntimeItself(brief, identity) ? undefined : brief.target
}

/** A container that is created, deleted, or dead before anybody saw it alive, is waited out; one that runs is there at once. */
export async function upcoming(host: Host, options: ParsedOptions): Promise<Target> {
  const identity = identityOf(options)
  const directory = `${identity.root}/${identity.id}`
  // With a name that is mistyped the wait would have no end.
  await host.exec([identity.runtime, '--version'], { timeoutMs: 10_000 })
  using wakeups = host.wakeups()
  wakeups.directory(directory)
  for (let init: Init | undefined; ; await wakeups.next()) {
    // Woken by its exec, most often.
    let target = init && (await started(host, identity, init))
    if (target) return target
    init = await findInit(host, identity)
    if (!init) continue
    // A created container has a pipe, at whose other end its init waits until it is started.
    await wakeups.exec(init.pid, async () => !(await host.exists(`${directory}/exec.fifo`)))
    target = await started(host, identity, init)
    if (target) return target
  }
}

/** `manage --upcoming`: waits for a task to start, by the events of containerd. */
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Host } from '../contract/host.js'
import type { Target } from '../contract/job.js'
import type { ParsedOptions } from '../contract/options.js'
import { type Containerd, isUnreachable, unreachable } from './client.js'
import { type Envelope, EventsService } from './gen/events.js'
import { TaskStart } from './gen/task-events.js'
import { connect, findTask, type Identity, identityOf, isLive } from './state.js'

const STARTED = '/tasks/start'
/** Ours: that it arrives tells that others do. */
const HEARD = '/cedana/heard'
const HEARD_EVERY_MS = 50
/** Between two attempts at a socket that nobody listens to. */
const REFUSED_MS = 200

async function running(host: Host, containerd: Containerd, id: string): Promise<Target | undefined> {
  const task = await findTask(containerd, id)
  return isLive(task) ? host.identify(task.pid).catch(() => undefined) : undefined
}

/** containerd does not say when it has begun to listen for somebody: an event of ours is sent until it comes back. */
async function announceUntil(containerd: Containerd, mark: string, heard: AbortSignal): Promise<void> {
  while (!heard.aborted) {
    await containerd.call(EventsService.publish, { topic: HEARD, event: { typeUrl: mark, value: Buffer.alloc(0) } })
    await sleep(HEARD_EVERY_MS, undefined, { signal: heard }).catch(() => undefined)
  }
}

const concerns = ({ topic, event }: Envelope, id: string): boolean =>
  topic === STARTED && event !== undefined && TaskStart.decode(event.value).containerId === id

/** The next start of a task of that name, or the one that there has been. */
async function next(host: Host, containerd: Containerd, { id, namespace }: Identity): Promise<Target> {
  const mark = randomBytes(8).toString('hex')
  const filters = [`topic==${JSON.stringify(STARTED)},namespace==${JSON.stringify(namespace)}`, `topic==${JSON.stringify(HEARD)}`]
  const heard = new AbortController()
  const announced = announceUntil(containerd, mark, heard.signal)
  announced.catch(() => undefined)
  try {
    for await (const envelope of containerd.stream(EventsService.subscribe, { filters })) {
      const isOwn = envelope.topic === HEARD && envelope.event?.typeUrl === mark
      if (!isOwn && !concerns(envelope, id)) continue
      if (isOwn) {
        heard.abort()
        host.log.debug({ id, namespace }, 'containerd tells of tasks that start')
      }
      // One that has died already is waited out.
      const target = await running(host, containerd, id)
      if (target) return target
    }
    throw unreachable(containerd.place)
  } finally {
    heard.abort()
  }
}

async function listen(host: Host, identity: Identity): Promise<Target> {
  using containerd = connect(host, identity)
  return await next(host, containerd, identity)
}

/** Outlasts a restart of containerd, but not that it was never there. */
export async function upcoming(host: Host, options: ParsedOptions): Promise<Target> {
  const identity = identityOf(options)
  using wakeups = host.wakeups()
  wakeups.directory(identity.address.slice(0, identity.address.lastIndexOf('/')) || '/')
  {
    using containerd = connect(host, identity)
    const target = await running(host, containerd, identity.id)
    if (target) return target
  }
  for (;;) {
    try {
      return await listen(host, identity)
    } catch (thrown) {
      if (host.signal.aborted || !isUnreachable(thrown)) throw thrown
      // Its socket is made again when it is back, and refuses until containerd listens, as one does that was left behind.
      if (await host.exists(identity.address)) await sleep(REFUSED_MS, undefined, { signal: host.signal }).catch(() => undefined)
      else await wakeups.next()
    }
  }
}

/** Containers of containerd, dumped and restored as tasks of containerd. */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { useContainerd } from '../support/containerd.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const world = useWorld()
const containerd = useContainerd(world)

/** Counts, and has written each number to a file of its writable layer. */
const COUNTER = 'n=0; echo begun > /var/log/count; while :; do n=$((n+1)); echo $n; echo $n >> /var/log/count; sleep 0.02; done'

interface Counting {
  readonly jid: string
  count(): number
}

async function counting(word: string, flags: readonly string[] = []): Promise<Counting> {
  const jid = world.jid(word)
  const image = await containerd.busybox()
  await world.ok(['run', 'containerd', image, '--jid', jid, ...containerd.flags, ...flags, '--', 'sh', '-c', COUNTER])
  const count = () => Number(readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8').trim().split('\n').at(-1))
  await until('it counts', () => count() > 3)
  return { jid, count }
}

const dump = async (what: readonly string[], flags: readonly string[] = []): Promise<string> =>
  /^Dumped to (.+)$/m.exec((await world.ok(['dump', ...what, ...flags])).stdout)?.[1] ?? ''

describe('a container of containerd', () => {
  test('comes back as its job, and to containerd as a task like any other', async () => {
    const { jid, count } = await counting('again')
    await dump(['job', jid])
    expect(await containerd.task(jid)).toBeUndefined()
    const before = count()
    const { stdout } = await world.ok(['restore', 'job', jid])
    const pid = Number(/^Restored successfully, PID: (\d+)$/m.exec(stdout)?.[1])
    await until('it goes on counting', () => count() > before + 3)
    expect(await containerd.task(jid)).toEqual({ pid, status: 'RUNNING' })
    expect(await containerd.exec(jid, 'head', '-n1', '/var/log/count')).toBe('begun\n')
    await containerd.ok('tasks', 'pause', jid)
    await containerd.ok('tasks', 'resume', jid)
    await containerd.ok('tasks', 'kill', '--signal', 'SIGKILL', jid)
    await until('it ends', async () => (await world.inspect(jid)).is_running === false)
    expect((await world.inspect(jid)).exit).toEqual({ signal: 9 })
    expect(await containerd.containers()).not.toContain(jid)
  })
})

/** The daemon is killed with SIGKILL around the steps in which a runtime's own program is at work. No container is lost, none is left over. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { useMortalDaemon } from '../support/mortal-daemon.js'
import { useContainers } from '../support/containers.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const world = useWorld({ withoutDaemon: true })
const daemon = useMortalDaemon(world)
const containers = useContainers(world)
const COUNT = ['sh', '-c', 'i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done']

interface Job {
  readonly id: string
  readonly jid: string
  readonly run: readonly string[]
  output(): string
}
function job(word: string): Job {
  const id = containers.id(word)
  const jid = world.jid(word)
  const run = ['run', 'runc', id, '--jid', jid, '--bundle', containers.bundle(id, { args: COUNT }), '--root', containers.root]
  return { id, jid, run, output: () => readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8') }
}

async function countsOn({ jid, output }: Job): Promise<void> {
  const { length } = output()
  await until(`${jid} counts on`, () => output().length > length)
  const numbers = output().trimEnd().split('\n').slice(0, -1).map(Number)
  expect(numbers).toEqual(numbers.map((_, index) => index + 1))
}

/** The runtime and the daemon say the same of it. */
async function agree({ id, jid }: Job): Promise<boolean> {
  const row = await world.row(jid)
  const runs = row !== undefined && ['running', 'sleep'].includes(row[3] ?? '')
  if (!runs) await until(`${id} is gone from the runtime`, () => !containers.known().includes(id))
  else expect(JSON.parse(await containers.ok('state', id))).toMatchObject({ status: 'running', pid: Number(row[2]) })
  return runs
}

async function end({ id, jid }: Job): Promise<void> {
  await world.quick(['kill', jid])
  expect((await world.inspect(jid))['exit']).toMatchObject({ signal: 9 })
  await until(`nothing is left of ${id}`, () => !containers.known().includes(id) && !existsSync(join(world.runDir, 'jobs', jid)))
}

test.each(['make directory', 'start'])(
  'after the step `%s` of run',
  async (step) => {
    const one = job('run')
    await daemon.killAfter('run', step, one.run)
    if (await agree(one)) {
      await countsOn(one)
      await end(one)
    }
    await until('no directory is left', () => !existsSync(join(world.runDir, 'jobs', one.jid)))
  },
  60_000,
)

test.each(['criu dump', 'seal', 'let go'])(
  'after the step `%s` of dump',
  async (step) => {
    const one = job('dump')
    await world.quick(one.run)
    await countsOn(one)
    await daemon.killAfter('dump', step, ['dump', 'job', one.jid])
    if (!(await agree(one))) await world.quick(['restore', 'job', one.jid])
    await countsOn(one)
    await end(one)
  },
  60_000,
)

test.each(['read input', 'criu restore'])(
  'after the step `%s` of restore',
  async (step) => {
    const one = job('restore')
    await world.quick(one.run)
    await countsOn(one)
    await world.quick(['dump', 'job', one.jid])
    await daemon.killAfter('restore', step, ['restore', 'job', one.jid])
    if (!(await agree(one))) await world.quick(['restore', 'job', one.jid])
    await countsOn(one)
    await end(one)
  },
  60_000,
)

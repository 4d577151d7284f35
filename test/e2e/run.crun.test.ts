/** crun in the place of runc: what it can, and what it says where it cannot. */
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { useContainers } from '../support/containers.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const world = useWorld()
const crun = useContainers(world, 'crun')
const runc = useContainers(world, 'runc')
const COUNT = ['sh', '-c', 'i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done']

/** `--runtime` and `--root`: crun by a path, since on some machines it needs to be kept from what it cannot cope with. */
function flags(): string[] {
  const path = join(world.dir, 'crun-here')
  const argv = crun.argv().slice(0, -2)
  const quoted = argv.map((word) => `'${word}'`).join(' ')
  if (!existsSync(path)) writeFileSync(path, `#!/bin/sh\nexec ${quoted} "$@"\n`, { mode: 0o755 })
  return ['--runtime', path, '--root', crun.root]
}
const statusOf = async (containers: typeof crun, id: string): Promise<string | undefined> => {
  const { code, stdout } = await containers.command('state', id)
  return code === 0 ? (JSON.parse(stdout) as { status: string }).status : undefined
}

describe('--runtime crun', () => {
  test('attached: output, input, the exit code, and nothing left', async () => {
    const id = crun.id('attach')
    const bundle = crun.bundle(id, { args: ['sh', '-c', 'cat; echo err >&2; exit 7'] })
    const outcome = await world.cedana(['run', 'runc', id, '--jid', world.jid('attach'), '--bundle', bundle, ...flags(), '--attach'], {
      stdin: 'hello\n',
    })
    expect(outcome).toMatchObject({ code: 7, stdout: 'hello\n', stderr: 'err\n' })
    await until('it is gone', () => !crun.known().includes(id))
  })

  test('a terminal of the size of the caller', async () => {
    const id = crun.id('tty')
    const bundle = crun.bundle(id, { args: ['sh', '-c', 'stty size; read line; echo got $line; exit 5'] })
    const args = ['run', 'runc', id, '--jid', world.jid('tty'), '--bundle', bundle, ...flags(), '--tty', '--attach']
    const terminal = world.terminal(args, { rows: 31, columns: 97 })
    await terminal.says('31 97')
    terminal.type('hello\r')
    await terminal.says('got hello')
    expect((await terminal.exit).code).toBe(5)
  })

  test('why there is no container', async () => {
    const id = crun.id('typo')
    const bundle = crun.bundle(id, { args: ['no-such-program'] })
    const { stderr } = await world.fails(['run', 'runc', id, '--jid', world.jid('typo'), '--bundle', bundle, ...flags()])
    expect(stderr).toMatch(/crun.*no-such-program.*not found/)
    expect(crun.known()).not.toContain(id)
  })

  test('frozen, dumped, and restored by runc where crun itself cannot', async () => {
    const id = crun.id('dump')
    const jid = world.jid('dump')
    const bundle = crun.bundle(id, { args: COUNT })
    await world.ok(['run', 'runc', id, '--jid', jid, '--bundle', bundle, ...flags()])
    await world.ok(['freeze', 'job', jid])
    expect(await statusOf(crun, id)).toBe('paused')
    await world.ok(['unfreeze', 'job', jid])
    await world.ok(['dump', 'job', jid])
    expect(await statusOf(crun, id)).toBeUndefined()
    if ((await crun.ok('--version')).includes('+CRIU')) {
      await world.ok(['restore', 'job', jid])
      expect(await statusOf(crun, id)).toBe('running')
    } else {
      const { stderr } = await world.fails(['restore', 'job', jid])
      expect(stderr).toMatch(/this \S*crun-here was built without CRIU\n.*--runtime runc/)
      await world.ok(['restore', 'job', jid, '--runtime', 'runc', '--root', runc.root])
      expect(await statusOf(runc, id)).toBe('running')
    }
    await world.quick(['kill', jid])
    await until('it is gone', () => !crun.known().includes(id) && !runc.known().includes(id))
  })
})

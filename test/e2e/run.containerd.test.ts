/** Containers of containerd as jobs: started, watched, attached to, frozen, killed, deleted. */
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { useContainerd } from '../support/containerd.js'
import { until } from '../support/wait.js'
import { CEDANA, useWorld } from '../support/world.js'

const world = useWorld()
const containerd = useContainerd(world)

interface Run {
  readonly jid: string
  readonly pid: number
  output(): string
}

/** `run containerd` of busybox, under an id that is the job's. */
async function run(word: string, args: readonly string[], flags: readonly string[] = []): Promise<Run> {
  const jid = world.jid(word)
  const image = await containerd.busybox()
  const { stdout } = await world.ok(['run', 'containerd', image, '--jid', jid, ...containerd.flags, ...flags, '--', ...args])
  const pid = Number(/^Running managed containerd PID (\d+)$/m.exec(stdout)?.[1])
  return { jid, pid, output: () => readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8') }
}

const ended = (jid: string) => until(`${jid} ends`, async () => (await world.inspect(jid)).is_running === false)

describe('run containerd', () => {
  test('is a job, and a container like any other to containerd', async () => {
    const { jid, pid, output } = await run('plain', ['sh', '-c', 'echo hello; echo oops >&2; exec sleep 1000'])
    expect(await containerd.task(jid)).toEqual({ pid, status: 'RUNNING' })
    await until('its output is logged', () => output().includes('hello') && output().includes('oops'))
    expect(await containerd.exec(jid, 'cat', '/proc/1/comm')).toBe('sleep\n')
    expect((await world.row(jid))?.[1]).toBe('containerd')
    await world.quick(['job', 'kill', jid])
    expect(await world.inspect(jid)).toMatchObject({ is_running: false, exit: { signal: 9 } })
    expect(await containerd.containers()).not.toContain(jid)
  })

  test('has the labels and the signal to stop it by of its image, as containerd’s own command has it', async () => {
    const image = await containerd.busybox({ StopSignal: 'SIGQUIT', Labels: { maker: 'tests', long: 'x'.repeat(5000) } })
    const jid = world.jid('labels')
    const stops = 'trap "echo quit; exit 3" QUIT; echo ready; while :; do sleep 0.05; done'
    await world.ok(['run', 'containerd', image, '--jid', jid, ...containerd.flags, '--', 'sh', '-c', stops])
    const output = () => readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8')
    await until('it is ready', () => output().includes('ready'))
    const { Labels: labels } = JSON.parse(await containerd.ok('containers', 'info', jid)) as { Labels: object }
    expect(labels).toMatchObject({ maker: 'tests', 'io.containerd.image.config.stop-signal': 'SIGQUIT' })
    expect(labels).not.toHaveProperty('long')
    await containerd.ok('tasks', 'kill', jid)
    await ended(jid)
    expect((await world.inspect(jid)).exit).toEqual({ code: 3 })
  })

  test('has its exit code, however short it was', async () => {
    const runs = await Promise.all([3, 0, 42].map(async (code) => ({ code, ...(await run('short', ['sh', '-c', `exit ${code}`])) })))
    for (const { jid, code } of runs) {
      await ended(jid)
      expect((await world.inspect(jid)).exit).toEqual({ code })
    }
  })

  test('has the environment of its image and what was asked for, and nothing of the daemon’s or the caller’s', async () => {
    const env = { SECRET_TOKEN: 'never', AWS_SECRET_ACCESS_KEY: 'never' }
    const jid = world.jid('env')
    const image = await containerd.busybox()
    await world.ok(['run', 'containerd', image, '--jid', jid, ...containerd.flags, '--env', 'GREETING=a,b', '--', 'env'], { env })
    await ended(jid)
    const lines = readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8').trim().split('\n').sort()
    expect(lines).toEqual([world.mark, 'GREETING=a,b', 'HOME=/root', 'PATH=/bin'])
  })

  test('is refused before anything is made', async () => {
    const missing = await world.fails(['run', 'containerd', 'test.local/absent:1', ...containerd.flags])
    expect(missing.stderr).toContain('image test.local/absent:1 is not in namespace')
    const image = await containerd.busybox()
    const wrong = await world.refuses(['run', 'containerd', image, ...containerd.flags, '--snapshotter', 'none-such'])
    expect(wrong.stderr).toMatch(/^Error: InvalidArgument: containerd: snapshotter not loaded: none-such/)
    const failed = await world.fails(['run', 'containerd', image, '--jid', world.jid('bad'), ...containerd.flags, '--', '/no/such/program'])
    expect(failed.stderr).toContain('/no/such/program')
    const { jid } = await run('twice', ['sleep', '1000'])
    const twice = await world.fails(['run', 'containerd', image, '--id', jid, ...containerd.flags])
    expect(twice.stderr).toContain(`container ${jid} exists already`)
    await world.quick(['job', 'kill', jid])
    expect(await containerd.containers()).toEqual([])
  })
})

describe('the streams of a container', () => {
  test('are attached to, input and all, with its exit code', async () => {
    const image = await containerd.busybox()
    const jid = world.jid('attached')
    const talk = world.talk(['run', 'containerd', image, '--jid', jid, ...containerd.flags, '--attach', '--', 'sh', '-c', 'cat; exit 7'])
    talk.type('one\ntwo\n')
    talk.endInput()
    const { code } = await talk.exit
    expect({ code, stdout: talk.stdout }).toEqual({ code: 7, stdout: 'one\ntwo\n' })
  })

  test('are a terminal of the size of the caller’s', async () => {
    const image = await containerd.busybox()
    const shell = ['run', 'containerd', image, '--jid', world.jid('tty'), ...containerd.flags, '--attach', '--tty', '--', 'sh']
    const terminal = world.terminal(shell, { rows: 33, columns: 101 })
    terminal.type('stty size; tty\n')
    await until('the shell answers', () => /33 101\r*\n\/dev\/pts\/0/.test(terminal.stdout))
    terminal.type('exit 5\n')
    expect((await terminal.exit).code).toBe(5)
  })

  test('are the caller’s own without a daemon', async () => {
    const image = await containerd.busybox()
    const id = containerd.id('foreground')
    const command = [CEDANA, 'run', 'containerd', image, '--id', id, '--no-server', ...containerd.flags]
    const line = `echo from stdin | ${command.join(' ')} -- sh -c 'cat; echo done; exit 4' 2>/dev/null | cat; echo \${PIPESTATUS[1]}`
    const { stdout } = await promisify(execFile)('bash', ['-c', line], { env: world.env })
    expect(stdout).toBe('from stdin\ndone\n4\n')
    expect(await containerd.containers()).not.toContain(id)
    // What a program gives another for streams here is sockets.
    const sockets = await world.fails(['run', 'containerd', image, '--no-server', ...containerd.flags])
    expect(sockets.stderr).toContain('standard output and standard error of this command are sockets')
  })
})

describe('a container that runs', () => {
  test('is frozen and let go on, by its job and by its name', async () => {
    const { jid } = await run('frozen', ['sleep', '1000'])
    await world.ok(['freeze', 'job', jid])
    expect((await containerd.task(jid))?.status).toBe('PAUSED')
    await world.ok(['unfreeze', 'containerd', jid, ...containerd.flags])
    expect((await containerd.task(jid))?.status).toBe('RUNNING')
    await world.ok(['freeze', 'job', jid])
    await world.quick(['job', 'kill', jid])
    expect(await containerd.containers()).not.toContain(jid)
  })

  test('that containerd’s own command made is managed, and stays its maker’s', async () => {
    const id = containerd.id('managed')
    const pid = await containerd.run(await containerd.busybox(), id, ['sh', '-c', 'sleep 1000; exit 9'])
    const jid = world.jid('managed')
    const { stdout } = await world.ok(['manage', 'containerd', id, '--jid', jid, ...containerd.flags])
    expect(stdout).toContain(`Managing containerd PID ${pid}`)
    await containerd.exec(id, 'killall', 'sleep')
    await ended(jid)
    expect((await world.inspect(jid)).exit).toEqual({ code: 9 })
    expect(await containerd.containers()).toContain(id)
    await containerd.remove(id)
  })

  test('is one job all along: the daemon killed and started again, containerd restarted', async () => {
    const { jid, pid, output } = await run('steady', ['sh', '-c', 'while [ ! -e /tmp/go ]; do sleep 0.05; done; echo went; exit 6'])
    await world.killDaemon()
    await containerd.restart('SIGKILL')
    await world.startDaemon()
    expect(await world.inspect(jid)).toMatchObject({ pid, is_running: true })
    await containerd.restart()
    await containerd.exec(jid, 'touch', '/tmp/go')
    await ended(jid)
    expect((await world.inspect(jid)).exit).toEqual({ code: 6 })
    expect(output()).toBe('went\n')
    expect(await containerd.containers()).not.toContain(jid)
  })

  test('that ends while no daemon runs has its true end', async () => {
    const { jid, pid } = await run('unwatched', ['sh', '-c', 'while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 8'])
    await world.killDaemon()
    await containerd.exec(jid, 'touch', '/tmp/go')
    await until('it is gone', async () => (await containerd.task(jid))?.status === 'STOPPED')
    await world.startDaemon()
    expect(await world.inspect(jid)).toMatchObject({ pid, is_running: false, exit: { code: 8 } })
    expect(await containerd.containers()).not.toContain(jid)
  })
})

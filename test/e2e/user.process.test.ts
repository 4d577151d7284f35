/** Another user of the machine: may connect only where mode and group allow it, acts as himself, and never on what is not his. */
import { chmodSync, chownSync, existsSync, lchownSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { hasCapability, isAlive, requires } from '../support/processes.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const USER = 65534

/** The socket is open to everybody here, which is not the default. */
const world = useWorld({ env: { CEDANA_SOCKET_MODE: '0666' } })
beforeAll(() => chmodSync(world.dir, 0o755))

/** A directory of the user's own. */
function home(): string {
  const path = world.work()
  chmodSync(join(world.dir, 'work'), 0o755)
  chownSync(path, USER, USER)
  return path
}
const asUser = (cwd = home()) => ({ uid: USER, cwd })
const ended = (jid: string) => until(`${jid} has ended`, async () => (await world.inspect(jid)).is_running === false)

describe('another user', () => {
  test('runs as himself, whatever he says: uid, gid and groups are those of the socket peer (S1)', async () => {
    const cwd = home()
    const jid = world.jid('user')
    await world.ok(['run', 'process', '--jid', jid, '--out', join(cwd, 'log'), '--', 'id'], asUser(cwd))
    await ended(jid)
    expect(readFileSync(join(cwd, 'log'), 'utf8')).toMatch(/^uid=65534\(\w+\) gid=65534\(\w+\) groups=65534\(\w+\)\n$/)
    expect(statSync(join(cwd, 'log')).uid).toBe(USER)
  })

  test('the default log is his', async () => {
    const jid = world.jid('userlog')
    await world.ok(['run', 'process', '--jid', jid, '--', 'echo', 'mine'], asUser())
    await ended(jid)
    expect(statSync(`/var/log/cedana-output-${jid}.log`).uid).toBe(USER)
    expect(readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8')).toBe('mine\n')
  })

  test('--as-root is root’s', async () => {
    const jid = world.jid('asroot')
    expect((await world.fails(['run', 'process', '--jid', jid, '--as-root', '--', 'id'], asUser())).stderr).toContain('PermissionDenied')
    await world.ok(['run', 'process', '--jid', jid, '--as-root', '--', 'id'])
    await ended(jid)
  })

  test('root’s jobs are not his to kill, dump, freeze, attach to, delete, restore or read', async () => {
    const job = await world.job('counter', ['20'], { flags: ['--attachable'] })
    const path = await world.dump(job, ['--leave-running'])
    const [{ id } = { id: '' }] = JSON.parse((await world.ok(['checkpoints', job.jid, '--output', 'json'])).stdout) as { id: string }[]
    for (const args of [
      ['job', 'kill', job.jid],
      ['job', 'delete', job.jid],
      ['dump', 'job', job.jid],
      ['dump', 'process', String(job.pid)],
      ['freeze', 'job', job.jid],
      ['freeze', 'process', String(job.pid)],
      ['job', 'attach', job.jid],
      ['attach', String(job.pid)],
      ['job', 'logs', job.jid],
      ['manage', 'process', String(job.pid)],
      ['checkpoint', 'delete', id],
      ['checkpoint', 'inspect', id],
      ['restore', 'process', '--path', path],
    ]) {
      const outcome = await world.cedana(args, { ...asUser(), timeoutMs: 10_000 })
      expect(outcome.stdout, args.join(' ')).not.toMatch(/^(Killed|Deleted|Dumped|Froze|Managing|Restored)|^\d+$/m)
      expect(outcome.stdout + outcome.stderr, args.join(' ')).toMatch(/PermissionDenied|NotFound|denied|not found/)
    }
    expect(isAlive(job.pid)).toBe(true)
    expect(existsSync(path)).toBe(true)
    expect((await world.inspect(job.jid)).is_frozen).toBe(false)
    await world.ok(['kill', job.jid])
  })

  test('his own job he can see, kill and delete; root can too', async () => {
    const job = await world.job('counter', [], { uid: USER, cwd: home() })
    expect((await world.ok(['ps', '-q'], asUser())).stdout).toContain(job.jid)
    expect((await world.ok(['kill', job.jid], asUser())).stdout).toBe(`Killed job ${job.jid}\n`)
    await ended(job.jid)
    expect((await world.ok(['delete', job.jid], asUser())).stdout).toContain(`Deleted job ${job.jid}`)
  })

  test('files he names are opened as him (S2): logs, PID files and directories where he may not write', async () => {
    const secret = join(world.work(), 'secret')
    writeFileSync(secret, 'secret', { mode: 0o600 })
    await world.fails(['run', 'process', '--jid', world.jid('s2'), '--out', secret, '--', 'true'], asUser())
    await world.fails(['run', 'process', '--jid', world.jid('s2'), '--out', '/etc/cedana-test-log', '--', 'true'], asUser())
    await world.cedana(['run', 'process', '--jid', world.jid('s2'), '--pid-file', '/etc/cedana-test-pid', '--', 'true'], asUser())
    await world.cedana(['run', 'process', '--jid', world.jid('s2'), '--pid-file', secret, '--', 'true'], asUser())
    expect(readFileSync(secret, 'utf8')).toBe('secret')
    expect(existsSync('/etc/cedana-test-log') || existsSync('/etc/cedana-test-pid')).toBe(false)
  })

  test('links he planted are not followed: --out', async () => {
    const cwd = home()
    const target = join(world.work(), 'target')
    writeFileSync(target, 'root’s', { mode: 0o600 })
    symlinkSync(target, join(cwd, 'log'))
    lchownSync(join(cwd, 'log'), USER, USER)
    await world.fails(['run', 'process', '--jid', world.jid('link'), '--out', join(cwd, 'log'), '--', 'echo', 'x'], asUser(cwd))
    expect(readFileSync(target, 'utf8')).toBe('root’s')
  })

  test('a program he may not execute is not started', async () => {
    const dir = world.work()
    const path = join(dir, 'private')
    writeFileSync(path, '#!/bin/sh\necho no\n', { mode: 0o700 })
    chmodSync(path, 0o700)
    await world.fails(['run', 'process', '--jid', world.jid('private'), path], asUser())
  })

  test('a checkpoint directory where he may not write is refused', async () => {
    const job = await world.job('eventfd', [], { uid: USER, cwd: home() })
    await world.fails(['dump', 'job', job.jid, '--dir', '/etc'], asUser())
    await world.ok(['kill', job.jid])
  })

  test('--criu-opts is no way around any of it: no other target, no files, no programs run as root', async () => {
    const victim = await world.job('eventfd')
    const cwd = home()
    const job = await world.job('eventfd', [], { uid: USER, cwd })
    const ran = join(world.work(), 'ran')
    writeFileSync(join(cwd, 'script'), `#!/bin/sh\ntouch ${ran}\n`, { mode: 0o755 })
    chmodSync(join(cwd, 'script'), 0o755)
    writeFileSync(join(cwd, 'criu.conf'), `action-script ${join(cwd, 'script')}\n`)
    for (const opts of [
      { pid: victim.pid },
      { config_file: join(cwd, 'criu.conf') },
      { exec_cmd: [join(cwd, 'script')] },
      { log_file: '/etc/cedana-test-log' },
      { root: '/' },
      { ps: { fd: 1 } },
    ]) {
      const text = JSON.stringify(opts)
      const outcome = await world.cedana(['dump', 'job', job.jid, '--leave-running', '--dir', cwd, '--criu-opts', text], asUser(cwd))
      expect(outcome.code, text).toBe(1)
      expect(outcome.stderr, text).toMatch(/PermissionDenied|InvalidArgument/)
    }
    expect(existsSync(ran) || existsSync('/etc/cedana-test-log')).toBe(false)
    await victim.verify()
    await world.ok(['kill', job.jid])
  })

  test('dump and restore of a process that is not root’s', async (context) => {
    requires(context, 'CAP_SYS_RESOURCE')
    const cwd = home()
    mkdirSync(join(cwd, 'checkpoints'))
    chownSync(join(cwd, 'checkpoints'), USER, USER)
    const job = await world.job('memory', ['4', 'random'], { uid: USER, cwd })
    await world.ok(['dump', 'job', job.jid, '--dir', join(cwd, 'checkpoints')], asUser(cwd))
    await world.ok(['restore', 'job', job.jid], asUser(cwd))
    await job.verify()
  })

  test('without CAP_SYS_RESOURCE such a dump is refused beforehand, naming the cause', async (context) => {
    context.skip(hasCapability('CAP_SYS_RESOURCE'), 'this host gives CAP_SYS_RESOURCE')
    const job = await world.job('memory', ['1', 'random'], { uid: USER, cwd: home() })
    const { stderr } = await world.fails(['dump', 'job', job.jid])
    expect(stderr).toContain('CAP_SYS_RESOURCE')
    expect(stderr).toContain(String(job.pid))
    await job.verify()
  })

  test('without a daemon he needs nothing of root’s: the exit code of his program, and what this host lets him do', async () => {
    const cwd = home()
    const own = { ...asUser(cwd), env: { HOME: cwd, XDG_RUNTIME_DIR: undefined, CEDANA_RUN_DIR: undefined } }
    const { code, stdout, stderr } = await world.cedana(['exec', '--no-server', '--', 'sh', '-c', 'id -u; id -G; exit 3'], own)
    expect({ code, stdout, stderr }).toEqual({ code: 3, stdout: `${USER}\n${USER}\n`, stderr: '' })
    expect((await world.fails(['check'], own)).stderr).toMatch(/^Error: Failed with \d+ error/)
    expect((await world.fails(['dump', 'process', '1', '--no-server'], own)).stderr).toContain('PermissionDenied: process 1')
  })

  test('without a daemon, in a directory that is not his: one clear line', async () => {
    const own = { ...asUser(), env: { CEDANA_RUN_DIR: world.runDir } }
    expect((await world.fails(['exec', '--no-server', 'true'], own)).stderr).toBe(
      `Error: FailedPrecondition: cannot make directory ${world.runDir}/jobs: permission denied\n  → set run_dir to a directory you may write to\n`,
    )
  })

  test('a socket that is 0660 is closed to him', async () => {
    chmodSync(world.socket, 0o660)
    const { stderr } = await world.fails(['ps'], asUser())
    expect(stderr).toMatch(/permission|denied|EACCES/i)
    chmodSync(world.socket, 0o666)
  })
})

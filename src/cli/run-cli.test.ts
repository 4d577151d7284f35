import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { CedanaError } from '../plugins/contract/errors.js'
import type { AttachOutput, Engine } from '../daemon/api/engine.js'
import type { World } from './session.js'
import { fakeJob, runFake } from '../../test/support/fake-world.js'

const steps = [{ name: 'criu dump', category: 'criu', durationNs: 1_000_000, bytes: 0 }]
const dumped = {
  checkpointId: 'c1',
  paths: ['/tmp/d1'],
  size: 1,
  messages: ['a note'],
  steps,
  problems: [],
  state: undefined,
  plan: undefined,
  frozenUs: 1,
  criuStatistics: { frozen_time: 1, pages_written: 2 },
}
const started = { jid: 'train', pid: 4711, messages: [], steps }
const restored = { ...started, problems: [], state: undefined, plan: undefined, criuStatistics: { restore_time: 4 } }

describe('misuse is one line and exit code 2', () => {
  test.each([
    [['dmup'], "Error: unknown command 'dmup', did you mean dump?\n"],
    [['dump', 'proces', '1'], "Error: unknown command 'proces' of cedana dump, did you mean process?\n"],
    [['dump', 'nothing'], "Error: unknown command 'nothing' of cedana dump, which has: job, process, runc, containerd, k8s\n"],
    [['dump'], 'Error: cedana dump needs one of: job, process, runc, containerd, k8s (see cedana dump --help)\n'],
    [['dump', 'process'], "Error: missing required argument 'PID'\n"],
    [['dump', 'job'], "Error: missing argument 'JID'\n  → or say --latest\n"],
    [['logs', 'train', '-l'], 'Error: --latest says which one: leave train out\n'],
    [['checkpoint', 'verify'], "Error: missing argument 'CHECKPOINT'\n  → or say --latest\n"],
    [['dump', 'process', '1', '--comprssion', 'gzip'], "Error: unknown option '--comprssion', did you mean --compression?\n"],
    [['ps', '-o', 'xml'], /^Error: option '-o, --output <FORMAT>' argument 'xml' is invalid\. Allowed choices are table.*\n$/],
    [['exec', 'sh', '-c', 'date'], "Error: unknown option '-c'\n  → options of the program come after --: cedana exec -- sh -c …\n"],
    [
      ['run', 'process', 'ls', '--bogus'],
      "Error: unknown option '--bogus'\n  → options of the program come after --: cedana run process -- sh -c …\n",
    ],
    [
      ['manage', 'containerd', 'web', '--image', 'nginx'],
      "Error: unknown option '--image'\n  → it is one of cedana dump containerd and cedana restore containerd\n",
    ],
    [['manage', 'containerd', 'web', '--bogus=1'], "Error: unknown option '--bogus=1'\n"],
    [['exec', 'ls', '--attahc'], "Error: unknown option '--attahc', did you mean --attach?\n"],
    [['kill', 'train', '--grace', 'soon'], /^Error: option .* is invalid\. It is not a duration such as 30s or 5m\.\n$/],
    [['kill', 'train', '--signal', 'NOPE'], 'Error: unknown signal NOPE\n'],
    [['exec', 'printf', '\uFFFDA'], 'Error: argument "\uFFFDA" is not valid UTF-8\n'],
    [['exec', '--attach', '--out', '/tmp/x', 'ls'], /^Error: option '-a, --attach' cannot be used with option '-o, --out <FILE>'\n$/],
  ])('%j', async (argv, stderr) => {
    const outcome = await runFake(argv)
    expect(outcome).toMatchObject({ code: 2, stdout: '', connections: [] })
    if (typeof stderr === 'string') expect(outcome.stderr).toBe(stderr)
    else expect(outcome.stderr).toMatch(stderr)
  })

  test('as JSON when that was asked for', async () => {
    const { code, stderr } = await runFake(['ps', '--output', 'json', '--bogus'])
    expect(code).toBe(2)
    expect(JSON.parse(stderr)).toMatchObject({ error: { code: 'USAGE', message: "unknown option '--bogus'" } })
  })
})

describe('errors are exit code 1', () => {
  test.each([
    [['dump', 'process', '1753353235123456789'], 'Error: invalid pid: 1753353235123456789\n'],
    [['kill'], 'Error: Please provide at least one JID or use the --all flag\n'],
    [['delete'], 'Error: Please provide a job ID or use the --all flag\n'],
    [
      ['exec', 'no-such-program'],
      'Error: exec: "no-such-program": executable file not found in $PATH\n  → install it, or name it by its path\n',
    ],
    [['exec', '/etc'], 'Error: exec: "/etc": is a directory\n'],
    [['exec', '/etc/passwd'], 'Error: exec: "/etc/passwd": permission denied\n  → it must be a program that you may execute (chmod +x)\n'],
  ])('%j, and nothing is asked', async (argv, stderr) => {
    expect(await runFake(argv)).toEqual({ code: 1, stdout: '', stderr, connections: [] })
  })

  test('of the engine, with the hint', async () => {
    const getJob = async (): Promise<never> => {
      throw new CedanaError('NO_SUCH_JOB', 'job x not found', { hint: 'see cedana ps' })
    }
    expect(await runFake(['job', 'inspect', 'x'], { engine: { getJob } })).toMatchObject({
      code: 1,
      stderr: 'Error: NotFound: job x not found\n  → see cedana ps\n',
    })
    const { stderr } = await runFake(['job', 'inspect', 'x', '-o', 'json'], { engine: { getJob } })
    expect(JSON.parse(stderr)).toMatchObject({ error: { code: 'NO_SUCH_JOB', grpc: 'NOT_FOUND', hint: 'see cedana ps' } })
  })
})

describe('jobs', () => {
  const listJobs = async () => [fakeJob({ jid: 'other', pid: 5, status: 'sleep', log: '[Attachable]' }), fakeJob()]

  test('the table and its hints', async () => {
    const { stdout } = await runFake(['ps'], { engine: { listJobs } })
    expect(stdout).toBe(
      [
        'JOB    TYPE      PID  STATUS   GPU  CHECKPOINT  SIZE  LOG',
        'other  process     5  sleep    no                     [Attachable]',
        'train  process  4711  running  no                     /var/log/cedana-output-train.log',
        '',
        'Use `job inspect <JID>` for more details about a job',
        'Use `job checkpoint list <JID>` to list all checkpoints for a job',
        '',
      ].join('\n'),
    )
  })

  test('a table asks for what it shows, a document for everything', async () => {
    const asked = vi.fn(listJobs)
    const briefs = []
    for (const flags of [[], ['-q'], ['-o', 'name'], ['-o', 'wide'], ['-o', 'json'], ['-o', 'yaml']]) {
      await runFake(['ps', ...flags], { engine: { listJobs: asked } })
      briefs.push((asked.mock.lastCall as unknown as [{ readonly brief: boolean }])[0].brief)
    }
    expect(briefs).toEqual([true, true, true, false, false, false])
  })

  test('JID and PID are never coloured, the rest is on terminals', async () => {
    const { stdout } = await runFake(['jobs'], { engine: { listJobs }, isTTY: true })
    expect(stdout.split('\n')[1]).toMatch(/^other {2}\x1b\[36mprocess\x1b\[0m {5}5 {2}\x1b\[32msleep\x1b\[0m/)
  })

  test('ids only, JSON, none', async () => {
    expect((await runFake(['job', 'ls', '-q'], { engine: { listJobs } })).stdout).toBe('other\ntrain\n')
    expect((await runFake(['ps', '-o', 'name'], { engine: { listJobs } })).stdout).toBe('other\ntrain\n')
    expect(JSON.parse((await runFake(['ps', '--format', 'json'], { engine: { listJobs } })).stdout)).toMatchObject([
      { jid: 'other', is_running: true },
      {},
    ])
    const ids = async (...flags: string[]) => (await runFake(['ps', '-q', ...flags], { engine: { listJobs } })).stdout.trim().split('\n')
    expect(await ids('--sort', '-job')).toEqual(['train', 'other'])
    expect(await ids('--sort', 'job')).toEqual(['other', 'train'])
    expect(await ids('--filter', 'status=sleep,pid=5')).toEqual(['other'])
    expect(await ids('--filter', 'state=running')).toEqual(['other', 'train'])
    const halted = async () => [...(await listJobs()), fakeJob({ jid: 'past', status: 'halted', isRunning: false })]
    expect((await runFake(['ps', '-q', '--filter', 'status=running'], { engine: { listJobs: halted } })).stdout).toBe('other\ntrain\n')
    expect((await runFake(['ps', '--filter', 'status'], { engine: { listJobs } })).stderr).toMatch(
      /^Error: --filter status is not of the form/,
    )
    expect((await runFake(['ps', '--sort', 'x'], { engine: { listJobs } })).stderr).toMatch(/^Error: no column x: choose among job, type/)
    expect((await runFake(['ps'], { engine: { listJobs: async () => [] } })).stdout).toBe('No jobs found\n')
    expect((await runFake(['ps', '-o', 'json'], { engine: { listJobs: async () => [] } })).stdout).toBe('[]\n')
  })

  test('the latest: wherever one is named, and in a list', async () => {
    const jobs = async () => [
      fakeJob({ jid: 'first', createdAt: 1 }),
      fakeJob({ jid: 'last', createdAt: 3 }),
      fakeJob({ jid: 'mid', createdAt: 2 }),
    ]
    const asked = vi.fn(async (request: unknown) => request)
    const engine = {
      listJobs: jobs,
      getJob: async (jid: string) => (await asked(jid), fakeJob({ jid })),
      dump: async ({ jid }: { readonly jid: string }) => (await asked(jid), dumped),
      restore: async ({ jid }: { readonly jid: string }) => (await asked(jid), restored),
      freeze: async ({ jid }: { readonly jid: string }) => (await asked(jid), { type: 'process', pid: 3 }),
      killJobs: async ({ jids }: { readonly jids: readonly string[] }) => (await asked(jids.join()), []),
      deleteJobs: async ({ jids }: { readonly jids: readonly string[] }) => (await asked(jids.join()), []),
    } as Partial<Engine>
    for (const argv of [['job', 'inspect'], ['dump', 'job'], ['restore', 'job'], ['freeze', 'job'], ['kill'], ['delete']]) {
      asked.mockClear()
      expect(await runFake([...argv, '--latest'], { engine })).toMatchObject({ code: 0, stderr: '' })
      expect(asked.mock.calls).toEqual([['last']])
    }
    expect((await runFake(['ps', '-ql'], { engine })).stdout).toBe('last\n')
    expect((await runFake(['dump', 'job', '-l', '--no-server'], { engine })).connections).toEqual(['local with jobs', 'local with jobs'])
    expect(await runFake(['logs', '-l'], { engine: { listJobs: async () => [] } })).toMatchObject({
      code: 1,
      stderr: 'Error: NotFound: there are no jobs\n',
    })
  })

  test('kill asks only on a terminal', async () => {
    const killJobs = vi.fn<Engine['killJobs']>(async () => ['Killed job train'])
    expect(await runFake(['kill', '--all'], { engine: { killJobs } })).toMatchObject({ code: 1, connections: [] })
    const options = { engine: { killJobs }, isTTY: true }
    expect((await runFake(['kill', '--all'], { ...options, stdin: 'maybe\ny\n' })).stdout).toContain('Killed job train')
    expect(await runFake(['kill', '--all'], { ...options, stdin: 'n\n' })).toMatchObject({ code: 0, connections: [] })
    expect(await runFake(['kill', '--all'], { ...options, stdin: '' })).toMatchObject({ code: 0, connections: [] })
    expect((await runFake(['job', 'kill', '-s', 'SIGTERM', '-t', '10s', 'train'], { engine: { killJobs } })).stdout).toBe(
      'Killed job train\n',
    )
    expect(killJobs.mock.lastCall?.[0]).toEqual({ jids: ['train'], all: false, signal: 15, graceMs: 10_000 })
  })
})

describe('dump', () => {
  const dump = vi.fn<Engine['dump']>(async () => dumped)
  const options = { engine: { dump } }

  test('profile, messages, and the path last', async () => {
    const { stdout } = await runFake(['dump', 'process', '4711'], options)
    expect(stdout).toMatch(/dump \(total\)\n\na note\nDumped to \/tmp\/d1\n$/)
    const off = await runFake(['dump', 'process', '4711', '--no-profiling'], options)
    expect(off.stdout).toBe('a note\nDumped to /tmp/d1\n')
    const byConfig = await runFake(['--config', '{"profiling":{"enabled":false}}', 'dump', 'process', '4711'], options)
    expect(byConfig.stdout).not.toContain('total')
  })

  test('flags at any place, both ways to write them', async () => {
    await runFake(
      [
        'dump',
        '--dir',
        'sub',
        'process',
        '-R',
        '4711',
        '--name=n',
        '--tcp-established=false',
        '--external',
        'a,b',
        '--external',
        'c',
        '--timeout',
        '1m',
      ],
      options,
    )
    expect(dump.mock.lastCall?.[0]).toMatchObject({
      jid: '',
      type: 'process',
      target: { pid: '4711' },
      options: {},
      dir: '/work/dir/sub',
      name: 'n',
      leaveRunning: true,
      tcpEstablished: false,
      fileLocks: undefined,
      external: ['a', 'b', 'c'],
      timeoutMs: 60_000,
    })
  })

  test('a job, and without a daemon', async () => {
    expect((await runFake(['dump', 'job', 'train', '-d', 's3://b/x'], options)).connections).toEqual(['daemon'])
    expect(dump.mock.lastCall?.[0]).toMatchObject({ jid: 'train', type: '', target: {}, dir: 's3://b/x' })
    expect((await runFake(['dump', 'job', 'train', '--no-server'], options)).connections).toEqual(['local with jobs'])
    expect((await runFake(['dump', '--no-server', 'process', '1'], options)).connections).toEqual(['local'])
  })

  test('quiet and JSON', async () => {
    expect((await runFake(['dump', 'process', '1', '-q'], options)).stdout).toBe('/tmp/d1\n')
    expect(JSON.parse((await runFake(['dump', 'process', '1', '-o', 'json'], options)).stdout)).toMatchObject({
      checkpoint_id: 'c1',
      frozen_us: 1,
    })
  })

  test('-v: every step on standard error, and the log of what is done here', async () => {
    const progress = { phase: 'criu dump', bytes: 0, totalBytes: 0, frozen: true }
    const slow: Engine['dump'] = async (_request, asked) => {
      asked?.onProgress?.(progress)
      return dumped
    }
    const levels = async (...words: string[]) => {
      const seen = {
        engine: { dump: slow },
        world: { openLocal: vi.fn<World['openLocal']>(async () => ({ dump: slow, close: () => {} }) as never) },
      }
      const { stdout, stderr } = await runFake([...words, '-q', '--no-profiling', '--address', '/run/c.sock'], seen)
      const [config] = seen.world.openLocal.mock.lastCall ?? []
      return { stdout, stderr, level: config?.log_level_no_server }
    }
    const said = 'asking the daemon at /run/c.sock\ncriu dump\n'
    expect(await levels('dump', 'process', '1')).toMatchObject({ stdout: '/tmp/d1\n', stderr: '' })
    expect(await levels('dump', 'process', '1', '-v')).toMatchObject({ stdout: '/tmp/d1\n', stderr: said })
    expect(await levels('--log-level', 'debug', 'dump', 'process', '1')).toMatchObject({ stderr: said })
    expect((await levels('dump', 'process', '1', '--no-server')).level).toBe('warn')
    expect((await levels('-v', 'dump', 'process', '1', '--no-server')).level).toBe('debug')
    expect((await levels('dump', 'process', '-vv', '1', '--no-server')).level).toBe('trace')
    expect((await levels('dump', 'process', '--verbose', '--log-level', 'error', '1', '--no-server')).level).toBe('error')
  })

  test('a dry run shows the plan, and fails when the dump would', async () => {
    const problem = { severity: 'error' as const, id: 'io-uring', message: 'uses io_uring', hint: 'turn it off', pid: 7 }
    const refused = { ...dumped, plan: { criu: { pid: 7 } }, problems: [problem] }
    expect(await runFake(['dump', 'process', '7', '--dry-run'], { engine: { dump: async () => refused } })).toMatchObject({
      code: 1,
      stdout: 'criu:\n  pid: 7\n\nerror: pid 7: uses io_uring\n  → turn it off\n\nThis would fail.\n',
    })
  })
})

describe('--print-stats: one document, with the keys of podman and what was measured', () => {
  const engine = { dump: async () => dumped, restore: async () => restored }

  test('of a dump', async () => {
    const { stdout, stderr } = await runFake(['dump', 'job', 'train', '--print-stats'], { engine })
    expect(JSON.parse(stdout)).toEqual({
      podman_checkpoint_duration: 1000,
      container_statistics: [
        { Id: 'train', runtime_checkpoint_duration: 1000, criu_statistics: { frozen_time: 1, pages_written: 2 }, bytes_stored: 1 },
      ],
    })
    expect(stderr).toBe('a note\nDumped to /tmp/d1\n')
    expect(JSON.parse((await runFake(['dump', 'process', '7', '--print-stats'], { engine })).stdout)).toMatchObject({
      container_statistics: [{ Id: 'c1' }],
    })
  })

  test('of a restore; what CRIU has not said is left out', async () => {
    const { stdout, stderr } = await runFake(['restore', 'job', 'train', '--print-stats'], { engine })
    expect(JSON.parse(stdout)).toEqual({
      podman_restore_duration: 1000,
      container_statistics: [{ Id: 'train', runtime_restore_duration: 1000, criu_statistics: { restore_time: 4 } }],
    })
    expect(stderr).toBe('Restored successfully, PID: 4711\n')
    const silent = { restore: async () => ({ ...restored, jid: '', criuStatistics: {} }) }
    expect(JSON.parse((await runFake(['restore', 'process', '-p', '/p', '--print-stats'], { engine: silent })).stdout)).toMatchObject({
      container_statistics: [{ Id: '4711', runtime_restore_duration: 1000 }],
    })
  })

  test.each([
    ['dump', '-o', 'json'],
    ['dump', '-q'],
    ['dump', '--dry-run'],
    ['restore', '--attach'],
    ['restore', '--no-server'],
  ])('not with what prints something else: %s %s', async (verb, ...flags) => {
    expect((await runFake([verb, 'job', 'train', '--print-stats', ...flags], { engine })).stderr).toMatch(/cannot be used with/)
  })
})

describe('what others call it', () => {
  const dump = vi.fn<Engine['dump']>(async () => dumped)
  const restore = vi.fn<Engine['restore']>(async () => restored)
  const run = vi.fn<Engine['run']>(async () => started)
  const killJobs = vi.fn<Engine['killJobs']>(async () => [])
  const listJobs = async () => [fakeJob({ jid: 'a', pid: 5 }), fakeJob({ jid: 'b', pid: 6 })]
  const engine = { dump, restore, run, killJobs, listJobs }
  const asked = async (verb: { readonly mock: { readonly lastCall?: readonly unknown[] | undefined } }, argv: readonly string[]) => {
    expect(await runFake(argv, { engine })).toMatchObject({ code: 0, stderr: '' })
    return verb.mock.lastCall?.[0]
  }

  test.each<[readonly string[], object]>([
    [['--path', '/c/web'], { dir: '/c', name: 'web', compression: 'none' }],
    [['-p', '/c/web', '--compression', 'lz4'], { dir: '/c', name: 'web', compression: 'lz4' }],
    [['--path', 'web.tar.zst'], { dir: '/work/dir', name: 'web', compression: 'zstd' }],
    [['-D', '/c/web'], { dir: '/c', name: 'web', compression: 'none' }],
    [['--images-dir=/c/web.tar'], { dir: '/c', name: 'web', compression: 'tar' }],
    [['--image-path', '/c/web'], { dir: '/c', name: 'web' }],
    [['--export', '/c/web.tar.gz', '-c', 'gzip'], { dir: '/c', name: 'web', compression: 'gzip' }],
    [['-e', '/c/web.tar'], { dir: '/c', name: 'web', compression: 'tar' }],
    [['--checkpoint-dir', '/c'], { dir: '/c', name: '' }],
    [['--compress', 'zstd'], { dir: '', compression: 'zstd' }],
    [['--exit'], { leaveRunning: false }],
    [[], { leaveRunning: undefined, criuOpts: '' }],
    [['--tcp-close'], { criuOpts: '{"tcp_close":true}' }],
    [['--ext-unix-sk', '--criu-opts', '{"ext_unix_sk":false,"timeout":3}'], { criuOpts: '{"ext_unix_sk":false,"timeout":3}' }],
    [['--manage-cgroups-mode', 'none'], { criuOpts: '{"manage_cgroups":true,"manage_cgroups_mode":"CG_NONE"}' }],
    [['--tcp-close', '--criu-opts', '{'], { criuOpts: '{' }],
    [['--tcp-close', '--criu-opts', '[]'], { criuOpts: '[]' }],
  ])('dump %j', async (flags, request) => {
    expect(await asked(dump, ['dump', 'job', 'web', ...flags])).toMatchObject(request)
    expect(await asked(dump, ['dump', ...flags, 'process', '7'])).toMatchObject(request)
  })

  test.each<[readonly string[], string | RegExp]>([
    [['--path', 'x', '--dir', '/c'], /^Error: option '-p, --path <PATH>' cannot be used with option '-d, --dir <DIR>'\n$/],
    [['--path', 'x.tar', '-c', 'zstd'], 'Error: --path x.tar says tar, --compression zstd\n'],
    [['--path', 'x.tgz'], 'Error: --path x.tgz: an archive ends in .tar, .tar.gz, .tar.lz4, .tar.zlib, .tar.zst\n'],
    [['--path', 'x.tar', '--streams', '4'], 'Error: --path x.tar is an archive: --streams make a directory\n'],
    [['--manage-cgroups-mode', 'all'], /^Error: option '--manage-cgroups-mode <MODE>' argument 'all' is invalid/],
  ])('dump %j is a mistake', async (flags, stderr) => {
    const outcome = await runFake(['dump', 'job', 'web', ...flags], { engine })
    expect(outcome.code).toBe(2)
    expect(outcome.stderr).toMatch(stderr)
  })

  test('restore, run, kill, and lists', async () => {
    for (const flag of ['-D', '--images-dir', '--image-path', '--import', '-i'])
      expect(await asked(restore, ['restore', 'process', flag, '/c/web'])).toMatchObject({ path: '/c/web' })
    // This letter is another's there.
    expect(await asked(restore, ['restore', 'runc', '-p', '/c/web', '-i', 'two'])).toMatchObject({ path: '/c/web', options: { id: 'two' } })
    expect(await asked(restore, ['restore', 'runc', '--import', '/c/web', '-n', 'two', '-s'])).toMatchObject({
      path: '/c/web',
      options: { id: 'two' },
      leaveStopped: true,
    })
    expect(await asked(restore, ['restore', 'job', 'web', '--pidfile', '/p', '-i', 'two'])).toMatchObject({
      pidFile: '/p',
      options: { id: 'two' },
    })
    expect(await asked(dump, ['dump', 'containerd', 'web', '--rw', '--exit'])).toMatchObject({
      options: { rootfs: true },
      leaveRunning: false,
    })
    expect(await asked(run, ['exec', '--name', 'web', 'true'])).toMatchObject({ jid: 'web' })
    expect(await asked(run, ['run', 'containerd', '-e', 'A=1', '-e', 'B=2', 'nginx'])).toMatchObject({ options: { env: ['A=1', 'B=2'] } })
    expect(await asked(killJobs, ['kill', '--time', '10', 'web'])).toMatchObject({ signal: 15, graceMs: 10_000 })
    for (const name of ['ps', 'ls', 'jobs'])
      expect((await runFake([name, '-q', '-f', 'pid=6', '--sort-by', 'job'], { engine })).stdout).toBe('b\n')
    expect((await runFake(['dump', 'job', '--help'])).stdout).not.toMatch(/--images-dir|--export/)
  })
})

describe('run', () => {
  const run = vi.fn<Engine['run']>(async () => started)

  test("interspersed flags; what follows -- is the program's own", async () => {
    const { stdout } = await runFake(['exec', 'echo', 'hello', '--jid', 'x', '--no-profiling'], { engine: { run } })
    expect(stdout).toBe('Running managed process PID 4711\n')
    expect(run.mock.lastCall?.[0]).toMatchObject({
      jid: 'x',
      stdio: 'log',
      options: { path: '/usr/bin/echo', args: ['hello'] },
      workingDirectory: '/work/dir',
    })
    await runFake(['run', 'process', '--attachable', '--', 'sh', '-c', '--jid y'], { engine: { run } })
    expect(run.mock.lastCall?.[0]).toMatchObject({ jid: '', stdio: 'pipe', options: { path: '/usr/bin/sh', args: ['-c', '--jid y'] } })
    await runFake(['exec', '--', 'sh', '-c', 'x'], { engine: { run } })
    expect(run.mock.lastCall?.[0]).toMatchObject({ options: { args: ['-c', 'x'] } })
  })

  test('attached: its output, its code', async () => {
    const attach = async function* (): AsyncGenerator<AttachOutput> {
      yield { kind: 'tty', tty: false }
      yield { kind: 'stdout', bytes: Buffer.from('out\n') }
      yield { kind: 'stderr', bytes: Buffer.from('err\n') }
      yield { kind: 'exit', exit: { code: 42 } }
    }
    const outcome = await runFake(['exec', '--attach', '--no-profiling', 'true'], { engine: { run, attach } })
    expect(outcome).toMatchObject({ code: 42, stdout: 'out\n', stderr: 'err\n' })
    expect(run.mock.lastCall?.[0]).toMatchObject({ stdio: 'pipe', waitAttach: true })
  })

  test('without a daemon: the code of the process, nothing else said', async () => {
    const attach = async function* (): AsyncGenerator<AttachOutput> {
      yield { kind: 'exit', exit: { signal: 15 } }
    }
    const outcome = await runFake(['exec', '--no-server', '--attachable', 'true', '--no-profiling'], { engine: { run, attach } })
    expect(outcome).toMatchObject({ code: 143, stdout: '', connections: ['local'] })
    expect(outcome.stderr).toBe('--attachable ignored: with --no-server the standard output is copied to the caller\n')
    expect(run.mock.lastCall?.[0]).toMatchObject({ stdio: 'inherit' })
  })

  test('without a daemon: an end that nobody tells is no success', async () => {
    const attach = async function* (): AsyncGenerator<AttachOutput> {}
    const outcome = await runFake(['exec', '--no-server', 'true', '--no-profiling'], { engine: { run, attach } })
    expect(outcome).toMatchObject({ code: 1, stderr: 'Error: it is not known how process 4711 ended\n' })
  })
})

describe('restore, manage, freeze', () => {
  test('the line that scripts read', async () => {
    const restore = vi.fn<Engine['restore']>(async () => restored)
    const { stdout } = await runFake(['restore', 'process', '-p', 'd1', '-o', 'log.txt', '--no-profiling'], { engine: { restore } })
    expect(stdout).toBe('Restored successfully, PID: 4711\n')
    expect(restore.mock.lastCall?.[0]).toMatchObject({ path: '/work/dir/d1', log: '/work/dir/log.txt', stdio: undefined, type: 'process' })

    const manage = async () => started
    expect((await runFake(['manage', 'process', '4711', '--no-profiling'], { engine: { manage } })).stdout).toBe(
      'Managing process PID 4711\n',
    )
    const freeze = async () => ({ type: 'process', pid: 3 })
    expect((await runFake(['freeze', 'job', 'x'], { engine: { freeze } })).stdout).toBe('Froze process PID 3\n')
    expect((await runFake(['unfreeze', 'process', '3'], { engine: { unfreeze: freeze } })).stdout).toBe('Unfroze process PID 3\n')
  })
})

test('checkpoints by id, and by paths of this directory', async () => {
  const cwd = await mkdtemp(join(tmpdir(), 'cedana-cli-'))
  onTestFinished(() => rm(cwd, { recursive: true }))
  await writeFile(join(cwd, 'dump.tar'), '')
  const deleteCheckpoint = vi.fn<Engine['deleteCheckpoint']>(async (path) => ({ path }))
  for (const [name, asked] of [
    ['4be1', '4be1'],
    ['dump.tar', `${cwd}/dump.tar`],
    ['./gone', `${cwd}/gone`],
    ['sub/../dump.tar', `${cwd}/dump.tar`],
    ['.', cwd],
    ['/tmp/d1', '/tmp/d1'],
    ['s3://bucket/d1', 's3://bucket/d1'],
  ] as const) {
    const { stdout } = await runFake(['checkpoint', 'delete', name], { engine: { deleteCheckpoint }, world: { cwd } })
    expect(stdout).toBe(`Deleted ${asked}\n`)
  }
  const verifyCheckpoint = vi.fn<Engine['verifyCheckpoint']>(async (path) => ({ path, files: 1, bytes: 1 }))
  await runFake(['job', 'checkpoint', 'verify', './d'], { engine: { verifyCheckpoint } })
  expect(verifyCheckpoint.mock.lastCall?.[0]).toBe('/work/dir/d')
  const inspectCheckpoint = vi.fn<Engine['inspectCheckpoint']>(async () => ({ checkpoint: {}, manifest: {}, contents: {} }) as never)
  await runFake(['checkpoint', 'inspect', './d'], { engine: { inspectCheckpoint } })
  expect(inspectCheckpoint.mock.lastCall?.[0]).toBe('/work/dir/d')
})

test('the latest checkpoint', async () => {
  const view = { jid: 'train', type: 'process', path: '/p', size: 1, compression: 'none', exists: true }
  const engine = {
    listCheckpoints: async () => [
      { ...view, id: 'c1', time: 1 },
      { ...view, id: 'c3', time: 3 },
    ],
    verifyCheckpoint: async (id: string) => ({ path: id, files: 1, bytes: 1 }),
  }
  expect((await runFake(['checkpoint', 'verify', '-l', '-q'], { engine })).stdout).toBe('c3\n')
  expect((await runFake(['checkpoints', '-l', '-q'], { engine })).stdout).toBe('c3\n')
  expect((await runFake(['checkpoint', 'delete', '-l'], { engine: { listCheckpoints: async () => [] } })).stderr).toBe(
    'Error: NotFound: there are no checkpoints\n',
  )
})

test('query: the columns for people, keys for programs', async () => {
  const row = { cells: { PID: '7', STATUS: 'sleep', 'CONTAINER ID': 'c' }, state: undefined }
  const query = async () => ({ columns: ['PID', 'STATUS'], rows: [row], messages: [] }) as never
  expect((await runFake(['query', 'process', '7'], { engine: { query } })).stdout).toContain('PID  STATUS')
  const { stdout } = await runFake(['query', 'process', '7', '-o', 'json'], { engine: { query } })
  expect(JSON.parse(stdout)).toEqual([{ pid: '7', status: 'sleep', container_id: 'c' }])
  const many = async () => {
    const rows = ['10', '9', '8'].map((pid) => ({ cells: { PID: pid, 'CONTAINER ID': pid === '9' ? 'b' : 'a' }, state: undefined }))
    return { columns: ['PID', 'CONTAINER ID'], rows, messages: [] } as never
  }
  const ids = async (...flags: string[]) =>
    (await runFake(['query', 'runc', '-q', ...flags], { engine: { query: many } })).stdout.split('\n').join()
  expect(await ids('--sort', 'pid')).toBe('8,9,10,')
  expect(await ids('-f', 'container_id=a', '--sort', '-pid')).toBe('10,8,')
  expect(await ids('--filter', 'container id=b')).toBe('9,')
})

test('--init-config and --merge-config write, whatever the command', async () => {
  const writeConfig = vi.fn<World['writeConfig']>(async () => '')
  for (const argv of [['--init-config', 'version'], ['version', '--init-config'], ['--init-config']])
    await runFake(argv, { world: { writeConfig } })
  await runFake(['--merge-config', 'ps', '-q'], { engine: { listJobs: async () => [] }, world: { writeConfig } })
  expect(writeConfig.mock.calls.map(([kind]) => kind)).toEqual(['init', 'init', 'init', 'merge'])
})

test('a --config-dir that is not there', async () => {
  const outcome = await runFake(['--config-dir', '/nonexistent', 'ps'])
  expect(outcome).toMatchObject({ code: 1, stdout: '', connections: [] })
  expect(outcome.stderr).toBe('Error: --config-dir: /nonexistent is not a directory\n  → --init-config makes it, with a config.json\n')
})

test('help of every command has an example or sub-commands', async () => {
  for (const argv of [['ps'], ['dump', 'job'], ['job', 'attach'], ['checkpoint', 'verify'], ['completion', 'zsh']]) {
    expect((await runFake([...argv, '--help'])).stdout).toMatch(/^Usage: cedana [\s\S]*\nExamples:\n {2}cedana /)
  }
  expect((await runFake(['freeze', 'process', '--help'])).stdout).toContain('\n  cedana freeze process 4711\n')
  expect((await runFake(['help', 'dump', 'job'])).stdout).toContain('Usage: cedana dump job')
})

test('alone, and versions', async () => {
  expect(await runFake([])).toMatchObject({ code: 0, stderr: '' })
  expect(await runFake(['--version'])).toMatchObject({ code: 0, stdout: 'cedana version 1.2.3\n' })
  expect(await runFake(['version'])).toMatchObject({ code: 0, stdout: '1.2.3\n' })
  const engine: Partial<Engine> = {
    version: async () => ({ version: '1', criu: '4.2.1', kernel: '6.18', pid: 5 }),
    listPlugins: async () => [{ name: 'runc', version: '2' }] as unknown as Awaited<ReturnType<Engine['listPlugins']>>,
  }
  expect(JSON.parse((await runFake(['version', '-o', 'json'], { engine })).stdout)).toEqual({
    client: { version: '1.2.3', node: process.version, api: 'cedana.v1' },
    server: { version: '1', criu: '4.2.1', kernel: '6.18', pid: 5, plugins: [{ name: 'runc', version: '2' }] },
  })
})

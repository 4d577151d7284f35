/** Bad input of every flag: one clear line, not 0, and nothing has happened. */
import { readdirSync } from 'node:fs'
import { beforeEach, describe, expect, test } from 'vitest'
import { isAlive } from '../support/processes.js'
import { useWorld, type Job } from '../support/world.js'

const world = useWorld()
let job: Job | undefined
/** A new one after a test that harmed it. */
beforeEach(async () => {
  if (job === undefined || !isAlive(job.pid)) job = await world.job('eventfd')
})
const running = (): Job => job as Job

/** JOB and PID stand for those of a running job. Second: a word the message must have. */
const CASES: readonly (readonly [args: string, word: string])[] = [
  // commands
  ['nonsense', 'nonsense'],
  ['dump nonsense 1', 'nonsense'],
  ['restore nonsense', 'nonsense'],
  ['run nonsense x', 'nonsense'],
  ['manage nonsense 1', 'nonsense'],
  ['freeze nonsense 1', 'nonsense'],
  ['unfreeze nonsense 1', 'nonsense'],
  ['query nonsense 1', 'nonsense'],
  ['job nonsense', 'nonsense'],
  ['checkpoint nonsense', 'nonsense'],
  ['daemon nonsense', 'nonsense'],
  // arity
  ['dump process', ''],
  ['dump process PID PID', ''],
  ['dump job', ''],
  ['dump job JOB JOB', ''],
  ['restore job', ''],
  ['restore job JOB JOB', ''],
  ['restore process extra', ''],
  ['run process', ''],
  ['exec', ''],
  ['manage process', ''],
  ['freeze job', ''],
  ['freeze process', ''],
  ['attach', ''],
  ['job attach', ''],
  ['job inspect', ''],
  ['job inspect JOB JOB', ''],
  ['checkpoint inspect', ''],
  ['checkpoint verify', ''],
  ['checkpoint delete', ''],
  ['query process', ''],
  ['ps extra', ''],
  ['check extra', ''],
  ['version extra', ''],
  // unknown flags, missing and bad values
  ['ps --nonsense', '--nonsense'],
  ['ps --output nonsense', 'nonsense'],
  ['ps --output', '--output'],
  ['dump job JOB --nonsense', '--nonsense'],
  ['dump job JOB --compression', '--compression'],
  ['dump job JOB --compression nonsense', 'nonsense'],
  ['dump job JOB --streams 1', 'streams'],
  ['dump job JOB --streams 99999999999999999999', 'streams'],
  ['dump job JOB --compression gzip --level 10', '0 to 9 for gzip'],
  ['dump job JOB --compression zstd --level -1', '0 to 22 for zstd'],
  ['dump job JOB --compression none --level 1', 'no levels'],
  ['dump job JOB --timeout 600h', '480h'],
  ['job kill JOB --grace 600h', '480h'],
  ['dump job JOB --streams -2', 'streams'],
  ['dump job JOB --streams many', 'many'],
  ['dump job JOB --name ../escape', '../escape'],
  ['dump job JOB --name a/b', 'a/b'],
  ['dump job JOB --name .', 'name'],
  ['dump job JOB --name ..', 'name'],
  ['dump job JOB --dir s3://bucket', 's3'],
  ['dump job JOB --dir nonsense://x', 'nonsense'],
  ['dump job JOB --criu-opts nonsense', 'CRIU options'],
  ['dump job JOB --criu-opts []', 'CRIU options'],
  ['dump job JOB --criu-opts {"nonsense":1}', 'nonsense'],
  ['dump job JOB --criu-opts {"leave_running":"maybe"}', 'leave_running'],
  // What names the target, the files and the programs of a request is cedana's, not the caller's.
  ['dump job JOB --criu-opts {"pid":1}', 'pid'],
  ['dump job JOB --criu-opts {"images_dir_fd":0}', 'images_dir_fd'],
  ['dump job JOB --criu-opts {"images_dir":"/tmp"}', 'images_dir'],
  ['dump job JOB --criu-opts {"work_dir_fd":0}', 'work_dir_fd'],
  ['dump job JOB --criu-opts {"notify_scripts":false}', 'notify_scripts'],
  ['dump job JOB --timeout nonsense', 'nonsense'],
  ['dump process abc', 'invalid pid'],
  ['dump process PID --leave-running=perhaps', ''],
  ['restore process', 'path'],
  ['restore process --path', '--path'],
  ['restore process --path /etc --criu-opts {"nonsense":1}', ''],
  ['restore process --path /etc --attach --out /tmp/x', ''],
  ['restore process --path nonsense://x', 'nonsense'],
  ['restore job nobody --no-server', 'nobody'],
  ['run process --jid ../escape true', '../escape'],
  ['run process --jid a/b true', 'a/b'],
  ['run process --jid -x true', ''],
  ['run process --attach --out /tmp/x true', ''],
  ['manage process abc', 'invalid pid'],
  ['manage process PID --jid a/b', 'a/b'],
  ['freeze process abc', 'invalid pid'],
  ['attach abc', 'abc'],
  ['query process abc', 'invalid pid'],
  ['job kill JOB --signal NONSENSE', 'NONSENSE'],
  ['job kill JOB --signal 0', '0'],
  ['job kill JOB --signal 65', '65'],
  ['job kill JOB --grace nonsense', 'nonsense'],
  ['job inspect', ''],
  ['job inspect nobody', 'nobody'],
  ['job attach nobody', 'nobody'],
  ['job logs nobody', 'nobody'],
  ['completion nonsense', 'nonsense'],
  // configuration
  ['--config nonsense ps', '--config'],
  ['--config {"nonsense":1} ps', 'nonsense'],
  ['--config {"metrics":7} ps', 'metrics'],
  ['--config', '--config'],
  ['--protocol nonsense ps', 'nonsense'],
  ['--protocol tcp --address nonsense ps', 'nonsense'],
]

describe('bad input gives one clear line', () => {
  test.each(CASES)('%s', async (text, word) => {
    const args = text.split(' ').map((arg) => (arg === 'JOB' ? running().jid : arg === 'PID' ? String(running().pid) : arg))
    const before = readdirSync(world.checkpoints)
    const { stderr, stdout, code } = await world.fails(args)
    expect([1, 2]).toContain(code)
    expect(stderr).toContain(word)
    expect(stderr.trim().split('\n').length).toBeLessThanOrEqual(3)
    expect(stdout).toBe('')
    expect(readdirSync(world.checkpoints)).toEqual(before)
    expect(isAlive(running().pid)).toBe(true)
  })

  test('a job id of 129 characters', async () => {
    await world.fails(['run', 'process', '--jid', 'x'.repeat(129), 'true'])
  })

  test('empty values', async () => {
    for (const args of [
      ['dump', 'job', ''],
      ['restore', 'job', ''],
      ['freeze', 'job', ''],
      ['job', 'attach', ''],
      ['job', 'kill', ''],
      ['job', 'inspect', ''],
      ['run', 'process', ''],
      ['restore', 'process', '--path', ''],
      ['checkpoint', 'inspect', ''],
    ])
      expect((await world.fails(args)).stderr).not.toMatch(/bug|plugin|Too small/)
  })

  test('a typing error is answered with what was meant (U3)', async () => {
    expect((await world.fails(['dmup', 'job', 'x'])).stderr).toContain('dump')
    expect((await world.fails(['dump', 'proces', '1'])).stderr).toContain('process')
  })

  test('with --output json an error is one JSON object with a code', async () => {
    const { stderr, stdout, code } = await world.cedana(['job', 'inspect', 'nobody', '--output', 'json'])
    expect(code).toBe(1)
    const text = [stderr, stdout].find((one) => one.trim().startsWith('{')) ?? ''
    expect(JSON.parse(text)).toMatchObject({ error: { code: 'NO_SUCH_JOB' } })
  })

  test('the job is still unharmed', async () => {
    await running().verify()
  })
})

describe('help', () => {
  test.each([
    '',
    'run',
    'run process',
    'dump',
    'dump process',
    'dump job',
    'restore',
    'restore job',
    'manage process',
    'job',
    'job list',
    'ps',
    'job kill',
    'checkpoints',
    'freeze',
    'query process',
    'daemon',
    'daemon start',
    'check',
    'attach',
  ])('`cedana %s --help` exits 0 and shows usage', async (command) => {
    const { stdout } = await world.ok([...command.split(' ').filter(Boolean), '--help'])
    expect(stdout).toMatch(/^Usage: /m)
  })

  test('every flag of the reference is there', async () => {
    const flagsOf = async (...command: string[]) => (await world.ok([...command, '--help'])).stdout
    const dump = await flagsOf('dump', 'process')
    for (const flag of [
      '-d, --dir',
      '--name',
      '--compression',
      '--streams',
      '--leave-running',
      '--tcp-established',
      '--skip-in-flight',
      '--file-locks',
      '--external',
      '--shell-job',
      '--link-remap',
      '--criu-opts',
      '--no-server',
      '--result-file',
    ])
      expect(dump).toContain(flag)
    const restore = await flagsOf('restore', 'process')
    for (const flag of [
      '-p, --path',
      '--pid-file',
      '--no-server',
      '--criu-opts',
      '--tcp-established',
      '--tcp-close',
      '--leave-stopped',
      '--file-locks',
      '--external',
      '--shell-job',
      '--link-remap',
      '-o, --out',
      '-a, --attach',
      '--attachable',
    ])
      expect(restore).toContain(flag)
    const run = await flagsOf('run', 'process')
    for (const flag of ['-j, --jid', '--pid-file', '--no-server', '-a, --attach', '--attachable', '-o, --out', '--as-root', '--tty'])
      expect(run).toContain(flag)
    const manage = await flagsOf('manage', 'process')
    for (const flag of ['--pid-file', '-j, --jid', '--upcoming']) expect(manage).toContain(flag)
    const root = await flagsOf()
    for (const flag of [
      '--config',
      '--config-dir',
      '--init-config',
      '--merge-config',
      '--protocol',
      '--address',
      '--profiling',
      '--profiling-path',
    ])
      expect(root).toContain(flag)
    expect(await flagsOf('daemon', 'start')).toContain('--db')
  })

  test('completion for bash, zsh and fish; with job ids', async () => {
    for (const shell of ['bash', 'zsh', 'fish']) expect((await world.ok(['completion', shell])).stdout).toContain('cedana')
  })
})

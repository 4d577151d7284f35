import { execFileSync, spawn } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { buildSync } from 'esbuild'
import { afterAll, describe, expect, it } from 'vitest'

import type { ExitStatus } from '../../plugins/contract/job.js'
import {
  type LaunchedShim,
  launchShim,
  readShimExit,
  readShimState,
  SHIM_SLOTS,
  ShimConnection,
  shimOpenSlot,
  type ShimOutput,
  type ShimRequest,
} from './shim.js'

const SHIM = resolve('build/Release/cedana-shim')
const scratch = mkdtempSync('/tmp/cedana-shim-test-')
const isRoot = process.getuid?.() === 0
const NOBODY = { uid: 65534, gid: 65534, groups: [65534] }
const environment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C' }

let directories = 0
function newDirectory(): string {
  const directory = join(scratch, `job-${String(directories++)}`)
  mkdirSync(directory, { mode: 0o700 })
  return directory
}

function request(parts: Partial<ShimRequest> & Pick<ShimRequest, 'argv'>): ShimRequest {
  return { shimPath: SHIM, directory: newDirectory(), stdio: 'pipe', environment, workingDirectory: '/', ...parts }
}

const shell = (script: string): readonly [string, ...string[]] => ['sh', '-c', script]

interface Collected {
  stdout: string
  stderr: string
  exit: ExitStatus | undefined
}
async function collect(outputs: AsyncIterable<ShimOutput>, until?: string): Promise<Collected> {
  const all: Collected = { stdout: '', stderr: '', exit: undefined }
  for await (const output of outputs) {
    if (output.kind === 'exit') all.exit = output.exit
    else all[output.kind] += output.bytes.toString('latin1')
    if (until !== undefined && all.stdout.includes(until)) break
  }
  return all
}

/** Starts it, attaches before anything is lost, and waits for the end. */
async function runAttached(parts: Partial<ShimRequest> & Pick<ShimRequest, 'argv'>): Promise<Collected> {
  const wanted = request({ waitAttach: true, ...parts })
  const launched = await launchShim(wanted)
  const connection = await ShimConnection.open(wanted.directory)
  const all = await collect(connection.attach(true))
  await launched.done
  return all
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + 10_000
  while (!(await condition())) {
    if (Date.now() > end) throw new Error('condition not reached in 10 s')
    await sleep(10)
  }
}

const commandOf = (pid: string): string => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').join(' ').trim()
  } catch {
    return ''
  }
}

/** For shells that are to wait until it is opened. */
function gate(): { readonly wait: string; open(): void } {
  const path = join(scratch, `gate-${String(directories++)}`)
  return { wait: `until [ -e ${path} ]; do sleep 0.01; done`, open: () => writeFileSync(path, '') }
}

const isAlive = (pid: number): boolean => {
  try {
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${String(pid)}/stat`, 'latin1'))
  } catch {
    return false
  }
}

/** Of the shim, once it has answered somebody. */
async function residentKib({ shim }: LaunchedShim, { directory }: ShimRequest): Promise<number> {
  const connection = await ShimConnection.open(directory)
  await connection.status()
  connection.close()
  return Number(/^Rss:\s+(\d+)/m.exec(readFileSync(`/proc/${String(shim.pid)}/smaps_rollup`, 'utf8'))?.[1])
}

/** For programs of their own that use this module. */
function bundle(): void {
  // What the loader of the addon looks for.
  writeFileSync(join(scratch, 'package.json'), '{"name":"cedana"}')
  if (!existsSync(join(scratch, 'build'))) symlinkSync(resolve('build'), join(scratch, 'build'))
  buildSync({ entryPoints: ['src/daemon/host/shim.ts'], outfile: join(scratch, 'shim.mjs'), bundle: true, platform: 'node', format: 'esm' })
}

afterAll(() => {
  rmSync(scratch, { recursive: true, force: true })
})

describe('log', () => {
  it('gives stdout and stderr one appended description, stdin nothing, and no other descriptor', async () => {
    const log = join(scratch, 'appended.log')
    writeFileSync(log, 'before\n')
    const wanted = request({
      stdio: 'log',
      log,
      argv: shell('echo out; echo err >&2; cat; ls /proc/$$/fd; readlink /proc/$$/fd/0; exit 42'),
    })
    const launched = await launchShim(wanted)
    await launched.done
    expect(readFileSync(log, 'utf8')).toBe('before\nout\nerr\n0\n1\n2\n/dev/null\n')
    expect((await readShimExit(wanted.directory))?.exit).toEqual({ code: 42 })
    expect(await readShimState(wanted.directory)).toMatchObject({
      target: { pid: launched.pid, startTicks: launched.startTicks },
      shim: launched.shim,
      stdio: 'log',
      log,
    })
    expect(readdirSync(wanted.directory).sort()).toEqual(['exit', 'state'])
  })

  it('makes the log for the user of the job', { skip: !isRoot }, async () => {
    const log = join(scratch, 'given.log')
    await (
      await launchShim(request({ stdio: 'log', log, user: NOBODY, argv: shell('id -u; id -g; id -G') }))
    ).done
    expect(readFileSync(log, 'utf8')).toBe('65534\n65534\n65534\n')
    expect(statSync(log)).toMatchObject({ uid: 65534, gid: 65534, mode: 0o100644 })
  })

  it('opens the log with the rights of the user when told to', { skip: !isRoot }, async () => {
    const log = join(scratch, 'root-only.log')
    writeFileSync(log, '', { mode: 0o600 })
    chmodSync(scratch, 0o755)
    await expect(launchShim(request({ stdio: 'log', log, logAsUser: true, user: NOBODY, argv: ['true'] }))).rejects.toMatchObject({
      code: 'PERMISSION_DENIED',
      message: `cannot open the log "${log}": permission denied`,
      detail: { step: 'log', errno: 13 },
    })
  })

  it('follows no symbolic link and waits for no reader of a fifo', async () => {
    const link = join(scratch, 'link.log')
    symlinkSync('/etc/passwd', link)
    await expect(launchShim(request({ stdio: 'log', log: link, argv: ['true'] }))).rejects.toMatchObject({
      code: 'START_FAILED',
      detail: { step: 'log', errno: 40 },
    })
    const fifo = join(scratch, 'fifo')
    execFileSync('mkfifo', [fifo])
    await expect(launchShim(request({ stdio: 'log', log: fifo, argv: ['true'] }))).rejects.toMatchObject({
      detail: { step: 'log', errno: 6 },
    })
  })
})

describe('process', () => {
  it('has a session of its own, default signals, and nothing blocked', async () => {
    const { stdout } = await runAttached({ argv: shell('ps -o pid=,pgid=,sid= -p $$; grep -E "^Sig(Blk|Ign)" /proc/self/status') })
    const [ids = '', blocked, ignored] = stdout.split('\n')
    const [pid, group, session] = ids.trim().split(/ +/)
    expect([group, session]).toEqual([pid, pid])
    expect([blocked, ignored]).toEqual(['SigBlk:\t0000000000000000', 'SigIgn:\t0000000000000000'])
  })

  it('tells exit codes and signals', async () => {
    expect((await runAttached({ argv: shell('exit 7') })).exit).toEqual({ code: 7 })
    expect((await runAttached({ argv: shell('kill -TERM $$') })).exit).toEqual({ signal: 15 })
    expect((await runAttached({ argv: shell('kill -SEGV $$') })).exit).toEqual({ signal: 11 })
  })

  it('survives every signal sent to its shim, but for KILL', async () => {
    const wanted = request({ argv: shell('read line; exit 5') })
    const launched = await launchShim(wanted)
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGPIPE', 'SIGQUIT', 'SIGUSR1', 'SIGALRM', 'SIGTSTP'] as const)
      process.kill(launched.shim.pid, signal)
    await (await ShimConnection.open(wanted.directory)).end()
    await launched.done
    expect((await readShimExit(wanted.directory))?.exit).toEqual({ code: 5 })
  })

  it('reaps orphans, and ends after the last of them', async () => {
    const log = join(scratch, 'orphans.log')
    const go = gate()
    const wanted = request({ stdio: 'log', log, argv: shell(`(${go.wait}; echo late) & exit 3`) })
    const launched = await launchShim(wanted)
    await until(async () => (await readShimExit(wanted.directory)) !== undefined)
    expect(isAlive(launched.shim.pid)).toBe(true)
    const connection = await ShimConnection.open(wanted.directory)
    expect(await connection.exit()).toEqual({ code: 3 })
    go.open()
    await launched.done
    expect(readFileSync(log, 'utf8')).toBe('late\n')
  })

  it('is small', async () => {
    const wanted = request({ argv: ['sleep', '60'] })
    const launched = await launchShim(wanted)
    expect(await residentKib(launched, wanted)).toBeLessThan(2048)
    process.kill(launched.pid, 'SIGKILL')
    await launched.done
  })
})

describe('failure to start', () => {
  const refused = async (parts: Partial<ShimRequest> & Pick<ShimRequest, 'argv'>, expected: object): Promise<void> => {
    const log = join(scratch, 'never.log')
    const wanted = request({ log, ...parts })
    await expect(launchShim(wanted)).rejects.toMatchObject(expected)
    expect(readdirSync(wanted.directory)).toEqual([])
    expect(existsSync(log)).toBe(false)
  }
  it('names a program that is not there', () =>
    refused(
      { argv: ['/x/y'] },
      { code: 'START_FAILED', message: 'cannot run "/x/y": no such file or directory', detail: { step: 'exec', errno: 2 } },
    ))
  it('names a program that is not in PATH', () => refused({ argv: ['no-such-program'] }, { detail: { step: 'exec', errno: 2 } }))
  it('names a program that cannot be executed', () =>
    refused({ argv: ['/etc/passwd'] }, { message: 'cannot run "/etc/passwd": permission denied' }))
  it('names a working directory that is not there', () =>
    refused(
      { argv: ['true'], workingDirectory: '/x' },
      { message: 'cannot enter the working directory "/x": no such file or directory', detail: { step: 'cwd' } },
    ))
  it('enters the working directory as the user', { skip: !isRoot }, () =>
    refused({ argv: ['true'], workingDirectory: '/root', user: NOBODY }, { code: 'PERMISSION_DENIED', detail: { step: 'cwd', errno: 13 } }),
  )
  it('says so in a terminal too', () => refused({ argv: ['/x/y'], stdio: 'tty' }, { detail: { step: 'exec', errno: 2 } }))
  it('leaves an existing log as it was', async () => {
    const log = join(scratch, 'existing.log')
    writeFileSync(log, '')
    await expect(launchShim(request({ stdio: 'log', log, argv: ['/x/y'] }))).rejects.toMatchObject({ code: 'START_FAILED' })
    expect(existsSync(log)).toBe(true)
  })
  it('names a directory that is not there', async () => {
    await expect(launchShim(request({ directory: '/x/y', argv: ['true'] }))).rejects.toMatchObject({
      message: 'the shim cannot set up the job: open /x/y: no such file or directory',
    })
  })
  it('names a shim that is not there', async () => {
    await expect(launchShim(request({ shimPath: '/x/shim', argv: ['true'] }))).rejects.toMatchObject({
      message: 'cannot run the shim /x/shim: no such file or directory',
    })
  })
  it('leaks no descriptor', async () => {
    const open = (): number => readdirSync('/proc/self/fd').length
    await expect(launchShim(request({ argv: ['/x/y'] }))).rejects.toThrow()
    const before = open()
    for (let round = 0; round < 5; ++round) await expect(launchShim(request({ argv: ['/x/y'] }))).rejects.toThrow()
    await until(() => open() <= before)
  })
})

describe('pipe', () => {
  it('keeps the streams apart and gives both', async () => {
    const all = await runAttached({ argv: shell('echo out; echo err >&2') })
    expect(all).toEqual({ stdout: 'out\n', stderr: 'err\n', exit: { code: 0 } })
  })

  it('lets the user of the job reopen its own streams', { skip: !isRoot }, async () => {
    expect((await runAttached({ user: NOBODY, argv: shell('echo out > /dev/stdout; echo err > /dev/stderr') })).stdout).toBe('out\n')
  })

  it('passes stdin and its end', async () => {
    const wanted = request({ waitAttach: true, argv: ['sha256sum'] })
    await launchShim(wanted)
    const connection = await ShimConnection.open(wanted.directory)
    const all = collect(connection.attach(true))
    await connection.write(Buffer.alloc(3_000_000, 'x'))
    await connection.end()
    expect((await all).stdout).toBe(execFileSync('sha256sum', { input: Buffer.alloc(3_000_000, 'x') }).toString())
  })

  it('delivers what an attacher wrote before it left', async () => {
    const log = join(scratch, 'left.log')
    const wanted = request({ log, argv: shell('sleep 0.3; wc -c') })
    const launched = await launchShim(wanted)
    const connection = await ShimConnection.open(wanted.directory)
    void connection.write(Buffer.alloc(400_000, 'x')).catch(() => undefined)
    void connection.end().catch(() => undefined)
    connection.close()
    await launched.done
    expect(readFileSync(log, 'utf8')).toBe('400000\n')
  })

  it('replays the last output in order to those who come late', async () => {
    const wanted = request({ argv: shell('echo one; read next; echo two >&2; read next; echo three; cat') })
    await launchShim(wanted)
    const early = await ShimConnection.open(wanted.directory)
    for await (const output of early.attach(true)) {
      if (output.kind === 'exit' || output.bytes.toString() === 'three\n') break
      await early.write(Buffer.from('\n'))
    }
    const connection = await ShimConnection.open(wanted.directory)
    const order: string[] = []
    for await (const output of connection.attach(true)) {
      if (output.kind === 'exit') break
      order.push(output.bytes.toString())
      if (order.length === 3) await connection.end()
    }
    expect(order).toEqual(['one\n', 'two\n', 'three\n'])
  })

  it('replays 64 KiB and no more', async () => {
    const wanted = request({ argv: shell('seq -w 1 20000; echo end; cat') })
    await launchShim(wanted)
    await collect((await ShimConnection.open(wanted.directory)).attach(true), 'end\n')
    const connection = await ShimConnection.open(wanted.directory)
    const { stdout } = await collect(connection.attach(true), 'end\n')
    expect(stdout.length).toBe(65536)
    expect(stdout.endsWith('19999\n20000\nend\n')).toBe(true)
    const second = await ShimConnection.open(wanted.directory)
    const fresh = collect(second.attach(false))
    await second.end()
    expect((await fresh).stdout).toBe('')
  })

  it('serves several attachers at once', async () => {
    const wanted = request({ argv: shell('read line; seq 1 50000; exit 9') })
    await launchShim(wanted)
    const [first, second] = await Promise.all([ShimConnection.open(wanted.directory), ShimConnection.open(wanted.directory)])
    const both = Promise.all([collect(first.attach(true)), collect(second.attach(true))])
    await first.write(Buffer.from('go\n'))
    const expected = { stdout: execFileSync('seq', ['1', '50000']).toString(), stderr: '', exit: { code: 9 } }
    expect(await both).toEqual([expected, expected])
  })

  it('makes the job wait for an attacher that is slow, and loses nothing', async () => {
    const wanted = request({ waitAttach: true, argv: shell('head -c 6000000 /dev/zero') })
    await launchShim(wanted)
    const connection = await ShimConnection.open(wanted.directory)
    let size = 0
    for await (const output of connection.attach(true)) {
      if (output.kind === 'exit') break
      if (size === 0) await sleep(500)
      size += output.bytes.length
    }
    expect(size).toBe(6_000_000)
  })

  it.concurrent('drops an attacher that is stuck, after 10 s', { timeout: 30_000 }, async () => {
    const log = join(scratch, 'stuck.log')
    const wanted = request({ waitAttach: true, log, argv: shell('head -c 6000000 /dev/zero') })
    const start = Date.now()
    const launched = await launchShim(wanted)
    const connection = await ShimConnection.open(wanted.directory)
    const outputs = connection.attach(true)
    await outputs.next()
    await launched.done
    expect(Date.now() - start).toBeGreaterThan(9000)
    expect(statSync(log).size).toBe(6_000_000)
    let last: ShimOutput | undefined
    for await (const output of outputs) last = output
    expect(last?.kind).toBe('stdout')
  })

  it.concurrent('waits for an attacher, but not for ever', { timeout: 30_000 }, async () => {
    const wanted = request({ waitAttach: true, argv: shell('echo quick') })
    const start = Date.now()
    const launched = await launchShim(wanted)
    await launched.done
    expect(Date.now() - start).toBeGreaterThan(9000)
    expect((await readShimExit(wanted.directory))?.exit).toEqual({ code: 0 })
  })

  it('tells the exit at once when grandchildren hold the pipes, and still logs what they write', async () => {
    const log = join(scratch, 'grandchildren.log')
    const go = gate()
    const wanted = request({ waitAttach: true, log, argv: shell(`(${go.wait}; echo late) & seq 1 30000; exit 4`) })
    const launched = await launchShim(wanted)
    const connection = await ShimConnection.open(wanted.directory)
    const all = await collect(connection.attach(true))
    go.open()
    const before = execFileSync('seq', ['1', '30000']).toString()
    expect(all).toEqual({ stdout: before, stderr: '', exit: { code: 4 } })
    await launched.done
    expect(readFileSync(log, 'utf8')).toBe(`${before}late\n`)
  }, 20_000)

  it('tells the exit although a grandchild never stops writing', async () => {
    const wanted = request({ waitAttach: true, argv: shell('yes & echo $! >&2; exit 4') })
    const launched = await launchShim(wanted)
    const connection = await ShimConnection.open(wanted.directory)
    const all = await collect(connection.attach(true))
    expect(all.exit).toEqual({ code: 4 })
    process.kill(Number(all.stderr), 'SIGKILL')
    await launched.done
  })

  it('shows the input that was not read, and takes it again', async () => {
    const wanted = request({ argv: ['sleep', '60'] })
    const launched = await launchShim(wanted)
    const connection = await ShimConnection.open(wanted.directory)
    expect(await connection.pendingStdin()).toEqual({ bytes: Buffer.alloc(0), ended: false })
    const input = Buffer.concat(Array.from({ length: 20_000 }, (_, index) => Buffer.from(`line ${String(index)}\n`)))
    for (let at = 0; at < 40; at += 4) await connection.write(input.subarray(at, at + 4))
    connection.write(input.subarray(40)).catch(() => undefined) // not all is ever taken
    const other = await ShimConnection.open(wanted.directory)
    let pending = await other.pendingStdin()
    // What the shim holds back in the socket is not the job's yet: the pipe and 64 KiB are. That it has been asked does not take it away.
    await until(async () => {
      const before = pending.bytes.length
      pending = await other.pendingStdin()
      return before > 120_000 && pending.bytes.length === before
    })
    expect(input.subarray(0, pending.bytes.length).equals(pending.bytes)).toBe(true)
    process.kill(launched.pid, 'SIGKILL')
    await launched.done
    const stdinFile = join(scratch, 'pending')
    writeFileSync(stdinFile, input)
    expect((await runAttached({ argv: ['sha256sum'], stdinFile, stdinEnded: true })).stdout).toBe(
      execFileSync('sha256sum', { input }).toString(),
    )
    expect(existsSync(stdinFile)).toBe(false)
  })

  it('answers status before and after the exit', async () => {
    const go = gate()
    const wanted = request({ argv: shell(`(${go.wait}) & read line; exit 6`) })
    const launched = await launchShim(wanted)
    const connection = await ShimConnection.open(wanted.directory)
    const before = await connection.status()
    expect(before.exit).toBeUndefined()
    expect(before.state).toEqual(await readShimState(wanted.directory))
    expect(before.state.pipes?.stdin).toBe(/\d+/.exec(execFileSync('readlink', [`/proc/${String(launched.pid)}/fd/0`]).toString())?.[0])
    await connection.end()
    await until(async () => (await connection.status()).exit?.exit?.code === 6)
    go.open()
    await launched.done
    await expect(connection.status()).rejects.toMatchObject({ code: 'JOB_NOT_RUNNING' })
    await expect(ShimConnection.open(wanted.directory)).rejects.toMatchObject({ code: 'JOB_NOT_RUNNING' })
  })

  it('closes on those who do not speak the protocol', async () => {
    const wanted = request({ argv: ['sleep', '60'] })
    const launched = await launchShim(wanted)
    const socket = join(wanted.directory, 'shim.sock')
    for (const bytes of ['\\x49\\xff\\xff\\xff\\xff', 'Z\\0\\0\\0\\0', 'A\\0\\0\\0\\0']) {
      const script = `import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect('${socket}')\ns.send(b'${bytes}')\ns.settimeout(5)\nprint(s.recv(1))`
      expect(execFileSync('python3', ['-c', script]).toString()).toBe("b''\n")
    }
    process.kill(launched.pid, 'SIGKILL')
    await launched.done
  })
})

describe('tty', () => {
  it('is a controlling terminal with the given size', async () => {
    const all = await runAttached({
      stdio: 'tty',
      windowSize: { rows: 33, columns: 99 },
      argv: shell('tty; stty size; echo to-tty > /dev/tty; ps -o pid=,tpgid= -p $$; test -t 2'),
    })
    const [tty, size, controlling, ids = ''] = all.stdout.split('\r\n')
    expect(tty).toMatch(/^\/dev\/pts\/\d+$/)
    expect([size, controlling]).toEqual(['33 99', 'to-tty'])
    const [pid, foreground] = ids.trim().split(/ +/)
    expect(pid).toBe(foreground)
    expect(all.exit).toEqual({ code: 0 })
  })

  it('follows the window', async () => {
    const wanted = request({ stdio: 'tty', argv: shell('trap "stty size; exit 0" WINCH; echo ready; while :; do sleep 0.05; done') })
    await launchShim(wanted)
    const connection = await ShimConnection.open(wanted.directory)
    let seen = ''
    for await (const output of connection.attach(true)) {
      if (output.kind === 'exit') break
      seen += output.bytes.toString()
      if (seen === 'ready\r\n') await connection.resize({ rows: 50, columns: 132 })
    }
    expect(seen).toBe('ready\r\n50 132\r\n')
  })

  it('passes keys: Ctrl-C as a signal, the end of input as ^D', async () => {
    const wanted = request({ stdio: 'tty', argv: shell('echo ready; cat') })
    await launchShim(wanted)
    const connection = await ShimConnection.open(wanted.directory)
    const all = collect(connection.attach(true))
    await connection.write(Buffer.from('line\nunfinished'))
    await connection.end()
    expect(await all).toMatchObject({ exit: { code: 0 }, stdout: expect.stringContaining('line\r\nunfinished') as string })
    const interrupted = request({ stdio: 'tty', argv: shell('echo ready; exec sleep 60') })
    await launchShim(interrupted)
    const other = await ShimConnection.open(interrupted.directory)
    const end = collect(other.attach(true))
    await sleep(200)
    await other.write(Buffer.of(3))
    expect((await end).exit).toEqual({ signal: 2 })
  })

  it('gives everything written before the exit, also to those who look late', async () => {
    const expected = execFileSync('seq', ['1', '9000']).toString().replaceAll('\n', '\r\n')
    const all = await runAttached({ stdio: 'tty', argv: shell('seq 1 9000') })
    expect(all).toEqual({ stdout: expected, stderr: '', exit: { code: 0 } })
  })

  it('belongs to the user of the job', { skip: !isRoot }, async () => {
    expect((await runAttached({ stdio: 'tty', user: NOBODY, argv: shell('stat -Lc %u /proc/self/fd/0; echo x > $(tty)') })).stdout).toBe(
      '65534\r\nx\r\n',
    )
  })

  it('tells where the terminal is', async () => {
    const wanted = request({ stdio: 'tty', argv: ['cat'] })
    const launched = await launchShim(wanted)
    const state = await readShimState(wanted.directory)
    const facts = statSync(state?.tty?.path ?? '')
    expect(state?.tty).toMatchObject({ rdev: facts.rdev, dev: facts.dev })
    process.kill(launched.pid, 'SIGKILL')
    await launched.done
  })
})

describe('restore', () => {
  const environmentOfCriu = environment
  const criu = (script: string): readonly [string, ...string[]] => ['bash', '-c', script]
  const restoring = (parts: Partial<ShimRequest> & Pick<ShimRequest, 'argv'>, rpcFd: number): ShimRequest =>
    request({ environment: environmentOfCriu, restore: { rpcFd, open: [{ path: '/etc/hostname', flags: 0 }] }, ...parts })

  /** A pipe whose write end stands for CRIU's end of the socket: who else holds it keeps the reader waiting. */
  async function withRpc<T>(work: (rpcFd: number) => Promise<T>): Promise<T> {
    const fifo = join(scratch, `rpc-${String(directories++)}`)
    execFileSync('mkfifo', [fifo])
    const reader = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK)
    const rpcFd = openSync(fifo, constants.O_WRONLY)
    try {
      return await work(rpcFd).finally(() => {
        closeSync(rpcFd)
      })
    } finally {
      expect(readSync(reader, Buffer.alloc(1))).toBe(0) // end of file: EAGAIN would have been thrown
      closeSync(reader)
    }
  }

  it('becomes the parent of what CRIU leaves, on the streams of the slots', async () => {
    const wanted = request({ argv: ['true'] })
    const go = gate()
    const root = `setsid bash -c "${go.wait}; echo out >&11; echo err >&12; read x <&10; echo got \\$x >&11; exit 9" 3>&- &`
    const stdinFile = join(wanted.directory, 'stdin')
    writeFileSync(stdinFile, 'kept\n')
    const argv = criu(`ls -l /proc/$$/fd > ${scratch}/slots; ${root} sleep 0.1`)
    const launched = await withRpc((rpcFd) =>
      launchShim({ ...restoring({ argv }, rpcFd), directory: wanted.directory, stdinFile, waitAttach: true }),
    )
    const connection = await ShimConnection.open(wanted.directory)
    expect(Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${String(launched.pid)}/status`, 'utf8'))?.[1])).toBe(launched.shim.pid)
    const state = await readShimState(wanted.directory)
    expect(state).toMatchObject({ target: { pid: launched.pid }, stdio: 'pipe' })
    go.open()
    expect(await collect(connection.attach(true))).toEqual({ stdout: 'out\ngot kept\n', stderr: 'err\n', exit: { code: 9 } })
    const slots = readFileSync(join(scratch, 'slots'), 'utf8').matchAll(/ (\d+) -> (\S+)/g)
    expect(Object.fromEntries([...slots].map(([, fd, path]) => [fd, path?.replace(/rpc-\d+/, 'rpc')]))).toMatchObject({
      0: '/dev/null',
      2: '/dev/null',
      3: join(scratch, 'rpc'),
      [SHIM_SLOTS.stdin]: `pipe:[${state?.pipes?.stdin ?? ''}]`,
      [SHIM_SLOTS.stdout]: `pipe:[${state?.pipes?.stdout ?? ''}]`,
      [SHIM_SLOTS.stderr]: `pipe:[${state?.pipes?.stderr ?? ''}]`,
      [SHIM_SLOTS.null]: '/dev/null',
      [shimOpenSlot(0)]: '/etc/hostname',
    })
    await launched.done
  })

  it('knows how a root ended that did not wait for CRIU', async () => {
    const wanted = request({ stdio: 'none', argv: ['true'] })
    const argv = criu('((sleep 0.1; exit 6) &); sleep 0.3')
    const launched = await withRpc((rpcFd) => launchShim({ ...restoring({ argv, stdio: 'none' }, rpcFd), directory: wanted.directory }))
    await launched.done
    expect(await readShimExit(wanted.directory)).toMatchObject({ pid: launched.pid, exit: { code: 6 } })
  })

  it('says how CRIU failed and leaves nothing', async () => {
    const pidFile = join(scratch, 'left-behind')
    const left = `setsid sleep 60 & echo $! > ${pidFile};`
    for (const [script, message] of [
      [`${left} exit 1`, 'criu exited with code 1'],
      [`${left} kill -9 $$`, 'criu was killed by signal 9'],
      ['exit 0', 'criu restored nothing'],
    ] as const) {
      const wanted = request({ argv: ['true'] })
      await expect(
        withRpc((rpcFd) => launchShim({ ...restoring({ argv: criu(script) }, rpcFd), directory: wanted.directory })),
      ).rejects.toMatchObject({
        code: 'CRIU_RESTORE_FAILED',
        message,
      })
      expect(readdirSync(wanted.directory)).toEqual([])
      expect(isAlive(Number(readFileSync(pidFile, 'utf8')))).toBe(false)
    }
    await expect(withRpc((rpcFd) => launchShim(restoring({ argv: ['/x/criu'] }, rpcFd)))).rejects.toMatchObject({
      code: 'CRIU_RESTORE_FAILED',
      message: 'cannot run criu as "/x/criu": no such file or directory',
    })
    const missing = { path: '/x/file', flags: 0 }
    await expect(withRpc((rpcFd) => launchShim(request({ argv: ['true'], restore: { rpcFd, open: [missing] } })))).rejects.toMatchObject({
      message: 'cannot open "/x/file" for the restored process: no such file or directory',
    })
  })

  it('gives up when told to', async () => {
    const wanted = request({ argv: ['true'] })
    const begun = join(scratch, 'criu-has-begun')
    const controller = new AbortController()
    const { signal } = controller
    const restored = withRpc((rpcFd) =>
      launchShim({ ...restoring({ argv: criu(`sleep 60 & : > ${begun}; sleep 60`), signal }, rpcFd), directory: wanted.directory }),
    )
    restored.catch(() => undefined)
    await until(() => existsSync(begun))
    controller.abort()
    await expect(restored).rejects.toMatchObject({ code: 'CRIU_RESTORE_FAILED', message: 'criu was killed by signal 9' })
    expect(readdirSync(wanted.directory)).toEqual([])
  })
})

describe('launcher', () => {
  const launching = (parts: Partial<ShimRequest> & Pick<ShimRequest, 'argv'>): ShimRequest & { launcher: { pidFile: string } } => {
    const wanted = request(parts)
    return { ...wanted, launcher: { pidFile: join(wanted.directory, 'pid'), ...parts.launcher } }
  }
  /** Leaves `root` behind and tells its PID in $PID_FILE. A shell keeps its stdin from what runs in the background. */
  const leave = (root: string): string => `exec 3<&0; setsid sh -c '${root}' <&3 3<&- & echo $! > $PID_FILE`
  const withPidFile = (wanted: ReturnType<typeof launching>): ReturnType<typeof launching> => ({
    ...wanted,
    environment: { ...environment, PID_FILE: wanted.launcher.pidFile },
  })

  it('leaves a root that is supervised as any other', async () => {
    const log = join(scratch, 'launched.log')
    const wanted = withPidFile(launching({ log, argv: shell(`echo of the launcher; ${leave('echo out; echo err >&2; cat; exit 9')}`) }))
    const launched = await launchShim({ ...wanted, waitAttach: true })
    expect(readdirSync(wanted.directory).sort()).toEqual(['shim.sock', 'state'])
    const state = await readShimState(wanted.directory)
    expect(state).toMatchObject({ target: { pid: launched.pid, startTicks: launched.startTicks }, shim: launched.shim, stdio: 'pipe', log })
    expect(Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${String(launched.pid)}/status`, 'utf8'))?.[1])).toBe(launched.shim.pid)
    const connection = await ShimConnection.open(wanted.directory)
    const all = collect(connection.attach(true))
    await connection.write(Buffer.from('typed\n'))
    await connection.end()
    expect(await all).toEqual({ stdout: 'of the launcher\nout\ntyped\n', stderr: 'err\n', exit: { code: 9 } })
    await launched.done
    expect(readFileSync(log, 'utf8').split('\n').sort().join(' ')).toBe(' err of the launcher out typed')
    expect((await readShimExit(wanted.directory))?.exit).toEqual({ code: 9 })
  })

  it('hands on the input that was pending', async () => {
    const wanted = withPidFile(launching({ waitAttach: true, argv: shell(leave('cat; exit 3')) }))
    const stdinFile = join(wanted.directory, 'stdin')
    writeFileSync(stdinFile, 'kept\n')
    await launchShim({ ...wanted, stdinFile, stdinEnded: true })
    const connection = await ShimConnection.open(wanted.directory)
    expect(await collect(connection.attach(true))).toEqual({ stdout: 'kept\n', stderr: '', exit: { code: 3 } })
  })

  it('may end before the process between it and the root', async () => {
    // Else a shell that is its parent still might reap it.
    const go = gate()
    const between = `(${leave(`${go.wait}; exit 5`)}; sleep 0.3) & until [ -s $PID_FILE ]; do sleep 0.01; done`
    const wanted = withPidFile(launching({ stdio: 'none', argv: shell(between) }))
    const launched = await launchShim(wanted)
    await until(() => readFileSync(`/proc/${String(launched.pid)}/status`, 'utf8').includes(`\nPPid:\t${String(launched.shim.pid)}\n`))
    go.open()
    await launched.done
    expect(await readShimExit(wanted.directory)).toMatchObject({ pid: launched.pid, exit: { code: 5 } })
  })

  it('may leave a root that has ended already', async () => {
    // Not while its parent is a shell still, which might reap it.
    const root = 'until grep -q python /proc/$PPID/comm; do sleep 0.01; done; exit 6'
    const hasEnded = [
      'import os, time',
      'pid = open(os.environ["PID_FILE"]).read().strip()',
      'while ") Z " not in open(f"/proc/{pid}/stat").read(): time.sleep(0.01)',
    ]
    const wanted = withPidFile(launching({ stdio: 'none', argv: shell(`${leave(root)}; exec python3 -c '${hasEnded.join('\n')}'`) }))
    const launched = await launchShim(wanted)
    await launched.done
    expect(await readShimExit(wanted.directory)).toMatchObject({ pid: launched.pid, exit: { code: 6 } })
  })

  it('says how it failed and leaves nothing', { timeout: 30_000 }, async () => {
    const left = join(scratch, 'left-by-launcher')
    const leaveSleep = `(setsid sleep 60 & echo $! > ${left}; sleep 60) & until [ -s ${left} ]; do sleep 0.01; done;`
    for (const [script, message, detail] of [
      ['exit 7', '"sh" exited with code 7', { exitCode: 7 }],
      ['echo why >&2; printf "\\n\\033because \\n" >&2; exit 7', '"sh" exited with code 7:  because', { exitCode: 7 }],
      ['echo $$ > $PID_FILE; exit 1', '"sh" exited with code 1', { exitCode: 1 }],
      ['kill -9 $$', '"sh" was killed by signal 9', { signal: 9 }],
      ['exit 0', '"sh" wrote no PID to its pid file', { exitCode: 0 }],
      ['echo 12 13 > $PID_FILE', '"sh" wrote no PID to its pid file', { exitCode: 0 }],
      ['echo -5 > $PID_FILE', '"sh" wrote no PID to its pid file', { exitCode: 0 }],
      ['echo 1 > $PID_FILE', '"sh" left no process 1, which its pid file names', { exitCode: 0 }],
      ['echo 4194304 > $PID_FILE', '"sh" left no process 4194304, which its pid file names', { exitCode: 0 }],
    ] as const) {
      rmSync(left, { force: true })
      const log = join(scratch, 'never.log')
      const wanted = withPidFile(launching({ log, argv: shell(leaveSleep + script) }))
      await expect(launchShim(wanted)).rejects.toMatchObject({ code: 'START_FAILED', message, detail: { step: 'launcher', ...detail } })
      expect(readdirSync(wanted.directory)).toEqual([])
      expect(existsSync(log)).toBe(false)
      expect(isAlive(Number(readFileSync(left, 'utf8')))).toBe(false)
    }
    await expect(launchShim(launching({ argv: ['/x/runc'] }))).rejects.toMatchObject({
      message: 'cannot run "/x/runc": no such file or directory',
      detail: { step: 'exec', errno: 2 },
    })
  })

  it('believes no pid file of before', async () => {
    const wanted = withPidFile(launching({ argv: shell('sleep 60 & exit 0') }))
    writeFileSync(wanted.launcher.pidFile, String(process.pid))
    await expect(launchShim(wanted)).rejects.toMatchObject({ message: '"sh" wrote no PID to its pid file' })
  })

  it.concurrent.each([
    ['which undoes what it did', 'cleaned', '$SLEEP; echo cleaned > $CLEANED; exit 1', '"sh" exited with code 1'],
    ['which is stubborn', '', 'while :; do $SLEEP; done', '"sh" was killed by signal 9'],
    ['which believes it was successful', 'cleaned', '$SLEEP; echo cleaned > $CLEANED', '"sh" was given up'],
  ] as const)('gives a launcher up when told to, %s', { timeout: 20_000 }, async (what, cleaned, waits, message) => {
    const left = join(scratch, `left-by-aborted-${what}`)
    // What it makes is partly its child, partly left to the shim, and partly left to the shim by what is killed.
    const makes = `(setsid sh -c 'sleep 60 & echo $! > "${left}"; wait' &); sleep 60 & until [ -s "${left}" ]; do sleep 0.01; done`
    const wanted = withPidFile(launching({ stdio: 'none', argv: shell(`trap "" TERM; ${makes}; echo $! > $PID_FILE; ${waits}`) }))
    const CLEANED = join(scratch, `cleaned-${what}`)
    const controller = new AbortController()
    // Its own, by which it is known that the launcher has come to its last step.
    const SLEEP = `sleep 60.${process.pid}${waits.length}`
    const launched = launchShim({ ...wanted, environment: { ...wanted.environment, CLEANED, SLEEP }, signal: controller.signal })
    launched.catch(() => undefined)
    await until(() => readdirSync('/proc').some((pid) => /^\d+$/.test(pid) && commandOf(pid) === SLEEP))
    controller.abort()
    await expect(launched).rejects.toMatchObject({ code: 'START_FAILED', message, detail: { step: 'launcher' } })
    expect(readdirSync(wanted.directory)).toEqual([])
    expect(isAlive(Number(readFileSync(left, 'utf8')))).toBe(false)
    expect(existsSync(CLEANED) ? readFileSync(CLEANED, 'utf8').trim() : '').toBe(cleaned)
  })

  it('is not even started when given up before', async () => {
    const wanted = withPidFile(launching({ argv: ['true'] }))
    await expect(launchShim({ ...wanted, signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'START_FAILED' })
    expect(readdirSync(wanted.directory)).toEqual([])
  })

  describe('with a terminal of its own', () => {
    /** Makes a terminal, starts `root` in it, and does `send` with the master and the socket; the root waits for that. */
    const console = (root: string, send: string): readonly [string, ...string[]] => [
      'python3',
      '-c',
      `import array, os, socket, stat, sys
pid_file, console_socket = os.environ['PID_FILE'], os.environ['CONSOLE_SOCKET']
def send(fd, name=b'/dev/ptmx'):
    connection.sendmsg([name], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fd))])
connection = socket.socket(socket.AF_UNIX)
ready, go = os.pipe()
pid, master = os.forkpty()
if pid == 0:
    os.close(go)
    os.read(ready, 1)
    os.execvp('sh', ['sh', '-c', ${JSON.stringify(root)}])
open(pid_file, 'w').write(str(pid))
${send}
`,
    ]
    const SEND = 'connection.connect(console_socket); send([master]); connection.close()'
    /** Waits until the terminal has got a size. */
    const SIZED = `import fcntl, termios, time
while fcntl.ioctl(master, termios.TIOCGWINSZ, bytes(8)) == bytes(8): time.sleep(0.01)`
    const terminal = (parts: Partial<ShimRequest> & Pick<ShimRequest, 'argv'>): ReturnType<typeof launching> => {
      const wanted = launching({ stdio: 'tty', ...parts })
      const launcher = { ...wanted.launcher, consoleSocket: join(wanted.directory, 'console') }
      const env = { ...environment, PID_FILE: launcher.pidFile, CONSOLE_SOCKET: launcher.consoleSocket }
      return { ...wanted, launcher, environment: env }
    }

    it('takes it over: output, input, size, log, replay, exit', async () => {
      const log = join(scratch, 'console.log')
      const facts = join(scratch, 'console-facts')
      const look = `open('${facts}', 'w').write(oct(os.stat(console_socket).st_mode) + ' ' + ' '.join(os.readlink(f'/proc/self/fd/{n}') for n in range(3)))`
      const root = 'stty size; tty; trap "stty size; exit 8" WINCH; read line; echo got $line; while :; do sleep 0.05; done'
      const wanted = terminal({
        log,
        windowSize: { rows: 33, columns: 99 },
        argv: console(root, `${look}; ${SEND}; ${SIZED}`),
      })
      const launched = await launchShim(wanted)
      expect(await residentKib(launched, wanted)).toBeLessThan(2048)
      expect(readFileSync(facts, 'utf8')).toBe('0o140600 /dev/null /memfd:words (deleted) /memfd:words (deleted)')
      expect(readdirSync(wanted.directory).sort()).toEqual(['shim.sock', 'state'])
      const state = await readShimState(wanted.directory)
      const tty = readlinkSync(`/proc/${String(launched.pid)}/fd/0`)
      expect(state).toMatchObject({ target: { pid: launched.pid }, tty: { path: tty, rdev: statSync(tty).rdev, dev: statSync(tty).dev } })
      const connection = await ShimConnection.open(wanted.directory)
      let seen = ''
      let exit: ExitStatus | undefined
      for await (const output of connection.attach(true)) {
        if (output.kind === 'exit') exit = output.exit
        else seen += output.bytes.toString()
        if (seen.endsWith(`${tty}\r\n`)) await connection.write(Buffer.from('typed\n'))
        if (seen.endsWith('got typed\r\n')) await connection.resize({ rows: 50, columns: 132 })
      }
      await launched.done
      const expected = `33 99\r\n${tty}\r\ntyped\r\ngot typed\r\n50 132\r\n`
      expect({ seen, exit, logged: readFileSync(log, 'utf8') }).toEqual({ seen: expected, exit: { code: 8 }, logged: expected })
    })

    it('takes it also when the launcher is gone already, and keeps the size it was given', async () => {
      const sized = 'import fcntl, termios, struct; fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 11, 22, 0, 0))'
      const late = `${sized}
if os.fork() == 0:
    import time; time.sleep(0.2)
    ${SEND}
    time.sleep(0.2)
    os._exit(0)`
      const wanted = terminal({ waitAttach: true, argv: console('sleep 0.4; stty size; exit 2', late) })
      await launchShim(wanted)
      const connection = await ShimConnection.open(wanted.directory)
      expect(await collect(connection.attach(true))).toEqual({ stdout: '11 22\r\n', stderr: '', exit: { code: 2 } })
    })

    it('has keys and the end of input', async () => {
      const wanted = terminal({ argv: console('echo ready; exec sleep 60', SEND) })
      await launchShim(wanted)
      const connection = await ShimConnection.open(wanted.directory)
      const end = collect(connection.attach(true))
      await sleep(200)
      await connection.write(Buffer.of(3))
      expect((await end).exit).toEqual({ signal: 2 })
      const reading = terminal({ argv: console('cat; exit 4', SEND) })
      await launchShim(reading)
      const other = await ShimConnection.open(reading.directory)
      const read = collect(other.attach(true))
      await other.end()
      expect((await read).exit).toEqual({ code: 4 })
    })

    it('says what it said', async () => {
      const wanted = terminal({ argv: console('exec sleep 60', "os.write(1, b'out\\n'); os.write(2, b'why not\\n'); sys.exit(3)") })
      await expect(launchShim(wanted)).rejects.toMatchObject({ message: '"python3" exited with code 3: why not', detail: { exitCode: 3 } })
    })

    it('gets another size than it was restored with only when it is complete', async () => {
      const restored = 'import fcntl, termios, struct; fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 11, 22, 0, 0))'
      const trapped = join(scratch, 'trapped')
      const root = `trap "stty size; exit 5" WINCH; echo ready; : > ${trapped}; while :; do sleep 0.05; done`
      const complete = `os.write(go, b"."); import time
while not os.path.exists('${trapped}'): time.sleep(0.01)
time.sleep(0.1)`
      const wanted = terminal({
        waitAttach: true,
        windowSize: { rows: 50, columns: 132 },
        argv: console(root, `${restored}; ${SEND}; ${complete}`),
      })
      await launchShim(wanted)
      const connection = await ShimConnection.open(wanted.directory)
      expect(await collect(connection.attach(true))).toEqual({ stdout: 'ready\r\n50 132\r\n', stderr: '', exit: { code: 5 } })
    })

    it('fails without one, and leaves nothing', { timeout: 30_000 }, async () => {
      const connect = 'connection.connect(console_socket)'
      for (const send of [
        'pass',
        connect,
        `${connect}; connection.send(b'no descriptor')`,
        `${connect}; send([ready])`,
        `${connect}; import fcntl; send([fcntl.ioctl(master, 0x5441, os.O_RDWR | os.O_NOCTTY)])`, // the slave,
        `${connect}; send([master, master])`,
      ]) {
        const wanted = terminal({ argv: console('exec sleep 60', send) })
        await expect(launchShim(wanted), send).rejects.toMatchObject({
          code: 'START_FAILED',
          message: '"python3" handed on no terminal',
          detail: { step: 'launcher', exitCode: 0 },
        })
        expect(readdirSync(wanted.directory)).toEqual([])
      }
    })

    it('has a name for a socket that lies too deep', async () => {
      const wanted = terminal({ argv: ['true'] })
      const deep = join(wanted.directory, 'x'.repeat(120))
      mkdirSync(deep)
      const consoleSocket = join(deep, 'console')
      const argv = [...console('echo here; exit 6', `console_socket = sys.argv[1]; ${SEND}`), consoleSocket] as const
      await launchShim({ ...wanted, argv, waitAttach: true, launcher: { ...wanted.launcher, consoleSocket } })
      const connection = await ShimConnection.open(wanted.directory)
      expect(await collect(connection.attach(true))).toEqual({ stdout: 'here\r\n', stderr: '', exit: { code: 6 } })
      expect(readdirSync(deep)).toEqual([])
    })

    it('says that even the name of the socket is too long', async () => {
      const wanted = terminal({ argv: ['true'] })
      const consoleSocket = join(wanted.directory, 'x'.repeat(108))
      await expect(launchShim({ ...wanted, launcher: { ...wanted.launcher, consoleSocket } })).rejects.toMatchObject({
        code: 'START_FAILED',
        message: `the shim cannot set up the job: console socket ${consoleSocket}: name too long`,
      })
      expect(readdirSync(wanted.directory)).toEqual([])
    })
  })
})

describe('inherit', () => {
  it('uses the streams of the caller, in its process group, and lets go of them', async () => {
    bundle()
    const wanted = request({
      stdio: 'inherit',
      foreground: true,
      argv: shell('cat; ps -o pgid= -p $$; (exec sleep 60 </dev/null >/dev/null 2>&1) & echo $! >&2; exit 3'),
    })
    writeFileSync(
      join(scratch, 'caller.mjs'),
      `import { launchShim, waitForShimExit } from './shim.mjs'
       const request = ${JSON.stringify(wanted)}
       await launchShim(request)
       process.exit((await waitForShimExit(request.directory)).code)`,
    )
    const caller = spawn(process.execPath, [join(scratch, 'caller.mjs')], { stdio: 'pipe', detached: true })
    let stdout = ''
    let stderr = ''
    caller.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
    caller.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
    caller.stdin.end('typed\n')
    const start = Date.now()
    const code = await new Promise((done) => caller.once('close', done))
    expect({ code, stderr: stderr.trim() }).toEqual({ code: 3, stderr: expect.stringMatching(/^\d+$/) as string })
    expect(Date.now() - start).toBeLessThan(50_000) // a shim that holds the caller's pipes would have made us wait for sleep
    expect(stdout.split('\n').map((line) => line.trim())).toEqual(['typed', String(caller.pid), ''])
    process.kill(Number(stderr), 'SIGKILL')
  })
})

describe('daemon', () => {
  const launcher = join(scratch, 'launcher.mjs')
  const dieWhenThereIs = (path: string): string => `
       const { existsSync } = await import('node:fs')
       setInterval(() => existsSync(${JSON.stringify(path)}) && process.kill(process.pid, 'SIGKILL'), 10)`

  it('may be killed while the job writes: nothing is lost', { timeout: 60_000 }, async () => {
    bundle()
    const log = join(scratch, 'ten-megabytes.log')
    // Attached to before it writes: what is replayed to a late one is less than it waits for.
    const wanted = request({ log, waitAttach: true, argv: shell('seq 1 1300000; echo done >&2; read line; exit 8') })
    writeFileSync(
      launcher,
      `import { launchShim, ShimConnection } from './shim.mjs'
       const request = ${JSON.stringify(wanted)}
       await launchShim(request)
       const connection = await ShimConnection.open(request.directory)
       let size = 0
       for await (const output of connection.attach(true)) if ((size += output.bytes.length) > 500000) process.kill(process.pid, 'SIGKILL')`,
    )
    const daemon = spawn(process.execPath, [launcher], { stdio: 'inherit' })
    const [, signal] = await new Promise<unknown[]>((done) =>
      daemon.once('exit', (...how) => {
        done(how)
      }),
    )
    expect(signal).toBe('SIGKILL')
    const state = await readShimState(wanted.directory)
    expect(isAlive(state?.target.pid ?? 0)).toBe(true)
    const connection = await ShimConnection.open(wanted.directory)
    let stderr = ''
    let exit: ExitStatus | undefined
    for await (const output of connection.attach(true)) {
      if (output.kind === 'exit') exit = output.exit
      if (output.kind === 'stderr') stderr += output.bytes.toString()
      if (output.kind === 'stderr') await connection.write(Buffer.from('go\n'))
    }
    expect({ stderr, exit }).toEqual({ stderr: 'done\n', exit: { code: 8 } })
    expect(readFileSync(log, 'utf8')).toBe(`${execFileSync('seq', ['1', '1300000'], { maxBuffer: 20_000_000 }).toString()}done\n`)
  })

  it('may be killed while it restores: the job is there all the same', async () => {
    bundle()
    const [go, begun] = [gate(), join(scratch, 'restore-has-begun')]
    const argv = ['bash', '-c', `: > ${begun}; ${go.wait}; ((sleep 0.6; exit 13) &); sleep 0.3`]
    const wanted = { ...request({ argv: ['true'] }), argv, stdio: 'none', restore: { rpcFd: 0, open: [] } }
    writeFileSync(
      launcher,
      `import { launchShim } from './shim.mjs'
       void launchShim(${JSON.stringify(wanted)})
       ${dieWhenThereIs(begun)}`,
    )
    await new Promise((done) => spawn(process.execPath, [launcher], { stdio: ['pipe', 'inherit', 'inherit'] }).once('exit', done))
    expect(await readShimState(wanted.directory)).toBeUndefined()
    go.open()
    await until(async () => (await readShimState(wanted.directory)) !== undefined)
    await until(async () => (await readShimExit(wanted.directory))?.exit?.code === 13)
  })

  it('may be killed while a launcher runs: it goes on, and what it makes is supervised', async () => {
    bundle()
    const directory = newDirectory()
    const pidFile = join(directory, 'pid')
    const log = join(scratch, 'launched-alone.log')
    const [go, begun] = [gate(), join(scratch, 'launch-has-begun')]
    const argv = ['sh', '-c', `: > ${begun}; ${go.wait}; setsid sh -c 'echo here; sleep 0.3; exit 14' & echo $! > ${pidFile}`]
    const wanted = { ...request({ argv: ['true'] }), directory, argv, stdio: 'log', log, launcher: { pidFile } }
    writeFileSync(
      launcher,
      `import { launchShim } from './shim.mjs'
       void launchShim(${JSON.stringify(wanted)})
       ${dieWhenThereIs(begun)}`,
    )
    await new Promise((done) => spawn(process.execPath, [launcher], { stdio: 'inherit' }).once('exit', done))
    expect(await readShimState(directory)).toBeUndefined()
    const asked = (await ShimConnection.open(directory)).status()
    go.open()
    const status = await asked // answered once there is something to tell
    expect(status.state).toMatchObject({ stdio: 'log', log })
    await until(async () => (await readShimExit(directory))?.exit?.code === 14)
    expect(readFileSync(log, 'utf8')).toBe('here\n')
  })

  it('starts jobs quickly', { timeout: 60_000 }, async () => {
    const count = 200
    const start = Date.now()
    const queue = Array.from({ length: count }, () => request({ stdio: 'none', argv: ['sleep', '60'] }))
    const launched: Awaited<ReturnType<typeof launchShim>>[] = []
    const worker = async (): Promise<void> => {
      for (let next = queue.pop(); next !== undefined; next = queue.pop()) launched.push(await launchShim(next))
    }
    await Promise.all(Array.from({ length: 8 }, worker))
    const rate = count / ((Date.now() - start) / 1000)
    for (const { pid } of launched) process.kill(pid, 'SIGKILL')
    await Promise.all(launched.map(({ done }) => done))
    expect(rate).toBeGreaterThan(10) // on an idle machine hundreds; bench/ measures it
  })
})

describe('client', () => {
  it('reports nonsense, and puts split frames together', async () => {
    const frames: Buffer[][] = [
      [Buffer.from('O\x03\0\0'), Buffer.from('\0ab'), Buffer.from('cO\x01\0\0\0dX\x08\0\0\0\xff\xff\xff\xff\x09\0\0\0', 'latin1')],
      [Buffer.from('O\xff\xff\xff\x00', 'latin1')],
      [Buffer.from('?\0\0\0\0')],
    ]
    const directory = newDirectory()
    const server = createServer((socket) => {
      socket.on('error', () => undefined)
      socket.once('data', () => {
        void (async () => {
          for (const part of frames.shift() ?? []) {
            socket.write(part)
            await sleep(20)
          }
          socket.end()
        })()
      })
    })
    await new Promise<void>((done) => server.listen(join(directory, 'shim.sock'), done))
    const good: ShimOutput[] = []
    for await (const output of (await ShimConnection.open(directory)).attach(true)) good.push(output)
    expect(good).toEqual([
      { kind: 'stdout', bytes: Buffer.from('abc') },
      { kind: 'stdout', bytes: Buffer.from('d') },
      { kind: 'exit', exit: { signal: 9 } },
    ])
    for (const message of [/frame of 16777215 bytes/, /frame of unknown type/]) {
      const connection = await ShimConnection.open(directory)
      await expect(connection.status()).rejects.toThrow(message)
    }
    server.close()
  })

  it('is strict about damaged files and easy about missing ones', async () => {
    const directory = newDirectory()
    expect(await readShimState(directory)).toBeUndefined()
    expect(await readShimExit(join(directory, 'nowhere'))).toBeUndefined()
    for (const text of ['', 'pid 1\n', 'pid 1\ncode 5\nsignal 9\nexited_at 1\n', 'pid 1\ncode 0\nsignal 0\nexited_at 1']) {
      writeFileSync(join(directory, 'exit'), text)
      await expect(readShimExit(directory)).rejects.toMatchObject({ code: 'BUG' })
    }
    writeFileSync(join(directory, 'state'), 'pid x\n')
    await expect(readShimState(directory)).rejects.toThrow(/is damaged/)
  })
})

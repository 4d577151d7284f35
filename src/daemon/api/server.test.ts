import { execFile, spawnSync } from 'node:child_process'
import { chmodSync, existsSync, lstatSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Client, credentials, Metadata } from '@grpc/grpc-js'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Caller } from '../../plugins/contract/job.js'
import type { AttachInput, AttachOutput, Call, DumpRequest, JobView, RunRequest, Verbs } from '../operations/verbs.js'
import { connect, type Engine } from './client.js'
import { parseEndpoint } from './endpoint.js'
import { DaemonServiceService } from './gen/cedana.js'
import { serve, type RunningServer, type ServeOptions } from './server.js'

const RUN: RunRequest = {
  jid: '',
  type: 'process',
  options: { path: '/bin/true' },
  environment: {},
  workingDirectory: '/',
  stdio: 'log',
  waitAttach: false,
  log: '',
  pidFile: '',
  asRoot: false,
  gpuEnabled: false,
  windowSize: undefined,
}
const DUMP: DumpRequest = {
  jid: 'train',
  type: '',
  target: {},
  options: {},
  dir: '',
  name: '',
  compression: '',
  level: undefined,
  streams: 0,
  keepLast: undefined,
  leaveRunning: undefined,
  skipInFlight: undefined,
  dryRun: false,
  timeoutMs: 0,
  withState: true,
  tcpEstablished: undefined,
  fileLocks: false,
  shellJob: true,
  linkRemap: undefined,
  external: ['mnt[]:ms'],
  criuOpts: '',
}
const JOB: JobView = {
  jid: 'train',
  type: 'process',
  pid: 42,
  status: 'halted',
  isRunning: false,
  isFrozen: false,
  gpuEnabled: false,
  log: '',
  logPath: '/l',
  attachable: false,
  tty: false,
  uid: 0,
  gid: 0,
  createdAt: 1,
  startedAt: 2,
  exitedAt: 1_790_000_000_000,
  exit: { signal: 9 },
  endReason: 'killed',
  latestCheckpoint: { id: 'c', jid: 'train', type: 'process', path: '/c', time: 3, size: 2 ** 40, compression: 'none', exists: true },
  checkpoints: 7,
  args: ['a', 'b'],
  hostId: 'h',
  details: { path: '/bin/true' },
  state: undefined,
}

/** Verbs that a test gives; every other one fails as a bug. */
const fake = (given: Partial<Verbs>): Verbs =>
  new Proxy(given as Verbs, {
    get: (verbs, name): unknown => Reflect.get(verbs, name) ?? (() => Promise.reject(new Error(`unexpected call of ${String(name)}`))),
  })

let directory: string
let socket: string
let lines: { level: string; fields: object; message: string }[]
const open: { close(): unknown }[] = []

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cedana-api-'))
  socket = join(directory, 'd.sock')
  lines = []
})
afterEach(async () => {
  for (const one of open.splice(0).reverse()) await one.close()
  rmSync(directory, { recursive: true, force: true })
})

const logger = (level: string) => (fields: object, message: string) => void lines.push({ level, fields, message })
const log = { debug: logger('debug'), info: logger('info'), warn: logger('warn'), error: logger('error') }
const options = (more: Partial<ServeOptions> = {}): ServeOptions => ({
  endpoint: parseEndpoint('unix', socket),
  mode: 0o660,
  group: '',
  tokenFile: join(directory, 'token'),
  peerCredentials: () => ({ uid: 1000, gid: 100, groups: [100, 4], pid: 1 }),
  log,
  ...more,
})
async function start(verbs: Partial<Verbs>, more?: Partial<ServeOptions>): Promise<RunningServer> {
  const server = await serve(fake(verbs), options(more))
  open.push({ close: () => server.close(0) })
  return server
}
function client(address = socket, more: Partial<Parameters<typeof connect>[0]> = {}): Engine {
  const engine = connect({ protocol: 'unix', address, waitForReady: false, tokenFile: '', ...more })
  open.push(engine)
  return engine
}
const until = async (condition: () => boolean): Promise<void> => {
  for (let tries = 0; !condition(); tries++) {
    if (tries > 200) throw new Error('never happened')
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

describe('calls', () => {
  it('carries requests and answers unchanged', async () => {
    const seen: unknown[] = []
    await start({
      run: async (call, request) => {
        seen.push(call.caller, request)
        return { jid: 'bold_hopper1', pid: 4_000_000, messages: ['m'], steps: [{ name: 's', category: 'criu', durationNs: 1.7, bytes: 0 }] }
      },
      getJob: async () => JOB,
      listJobs: async (_call, { allHosts, jids, brief }) =>
        allHosts && brief && jids[0] === 'a'
          ? [{ ...JOB, details: {} }]
          : [JOB, { ...JOB, exit: { code: 3 } }, { ...JOB, exit: undefined, latestCheckpoint: undefined, state: { deep: [{ n: 1 }] } }],
      query: async (_call, request) => ({
        columns: ['PID'],
        rows: [{ cells: { PID: '1' }, state: { a: 1 } }],
        messages: [JSON.stringify(request)],
      }),
    })
    const engine = client()
    const request = {
      ...RUN,
      stdio: 'tty' as const,
      environment: { A: 'ü=' },
      windowSize: { rows: 3, columns: 9 },
      options: { path: 'x', args: ['1'], n: undefined },
    }
    expect(await engine.run(request)).toEqual({
      jid: 'bold_hopper1',
      pid: 4_000_000,
      messages: ['m'],
      steps: [{ name: 's', category: 'criu', durationNs: 2, bytes: 0 }],
    })
    expect(seen).toEqual([
      { uid: 1000, gid: 100, groups: [100, 4], pid: 1 },
      { ...request, options: { path: 'x', args: ['1'] } },
    ])
    expect(await engine.getJob('train')).toEqual(JOB)
    const jobs = await engine.listJobs({ allHosts: false, jids: [], brief: false })
    expect(jobs.map(({ exit }) => exit)).toEqual([{ signal: 9 }, { code: 3 }, undefined])
    expect(await engine.listJobs({ allHosts: true, jids: ['a'], brief: true })).toEqual([{ ...JOB, details: {} }])
    expect(jobs[2]).toMatchObject({ latestCheckpoint: undefined, state: { deep: [{ n: 1 }] } })
    expect(await engine.query({ type: 'process', options: { pids: [1] } })).toMatchObject({
      rows: [{ cells: { PID: '1' }, state: { a: 1 } }],
    })
  })

  it('sends the newest progress, then the result; unset switches stay unset', async () => {
    let seen: DumpRequest | undefined
    let heard = (): void => undefined
    const told = new Promise<void>((resolve) => (heard = resolve))
    await start({
      dump: async (call, request) => {
        seen = request
        call.onProgress({ phase: 'plan', bytes: 0, totalBytes: 0, frozen: false })
        call.onProgress({ phase: 'criu dump', bytes: 1, totalBytes: 2, frozen: true })
        await told
        return {
          checkpointId: 'id',
          paths: ['/c'],
          size: 2 ** 41,
          messages: [],
          steps: [],
          frozenUs: 12.5,
          criuStatistics: { frozen_time: 13 },
          state: { a: undefined, b: 12n },
          problems: [{ severity: 'warning', id: 'x', message: 'm' }],
          plan: { content: new Uint8Array([1, 2]) },
        }
      },
    })
    const progress: unknown[] = []
    const onProgress = (one: unknown): void => {
      progress.push(one)
      heard()
    }
    const result = await client().dump(DUMP, { onProgress })
    expect(seen).toEqual(DUMP)
    expect(progress).toEqual([{ phase: 'criu dump', bytes: 1, totalBytes: 2, frozen: true }])
    expect(result).toMatchObject({
      paths: ['/c'],
      size: 2 ** 41,
      frozenUs: 13,
      criuStatistics: { frozen_time: 13 },
      state: { b: '12' },
      plan: { content: 'AQI=' },
    })
    expect(result.problems).toEqual([{ severity: 'warning', id: 'x', message: 'm' }])
  })

  it('passes a result of many megabytes', async () => {
    await start({ getJob: async () => ({ ...JOB, state: { text: 'x'.repeat(20_000_000) } }) })
    expect((await client().getJob('x')).state).toHaveProperty('text.length', 20_000_000)
  })

  it('lists 1,000 jobs in a fraction of a second', async () => {
    const jobs = Array.from({ length: 1000 }, (_, n) => ({ ...JOB, jid: `job-${n}` }))
    await start({ listJobs: async () => jobs })
    const engine = client()
    await engine.listJobs({ allHosts: false, jids: [], brief: false })
    const begin = process.cpuUsage()
    expect(await engine.listJobs({ allHosts: false, jids: [], brief: false })).toHaveLength(1000)
    const { user, system } = process.cpuUsage(begin)
    expect(user + system).toBeLessThan(500_000)
  })
})

describe('errors', () => {
  it('arrive as the same class, with hint, detail and what followed', async () => {
    const error = new CedanaError('CRIU_DUMP_FAILED', 'criu could not dump pid 7: “ü”', {
      hint: 'see /l',
      detail: { pid: 7, big: 1n, lines: ['Error (x)'] },
    })
    error.suppressed.push(new CedanaError('BUG', 'second'))
    await start({ dump: () => Promise.reject(error), run: () => Promise.reject(new CedanaError('JOB_EXISTS', 'job a already exists')) })
    const got = await client()
      .dump(DUMP)
      .catch((thrown: unknown) => thrown)
    expect(got).toBeInstanceOf(CedanaError)
    expect(got).toMatchObject({
      code: 'CRIU_DUMP_FAILED',
      message: 'criu could not dump pid 7: “ü”',
      hint: 'see /l',
      detail: { pid: 7, big: '1', lines: ['Error (x)'] },
    })
    expect((got as CedanaError).suppressed).toMatchObject([{ code: 'BUG', message: 'second' }])
    await expect(client().run(RUN)).rejects.toMatchObject({ code: 'JOB_EXISTS', message: 'job a already exists' })
    expect(lines.filter(({ level }) => level === 'warn')).toMatchObject([
      { fields: { verb: 'Dump', uid: 1000, code: 'CRIU_DUMP_FAILED' }, message: 'call failed' },
      { fields: { verb: 'Run', code: 'JOB_EXISTS' } },
    ])
  })

  it('fit into the trailer however large they are', async () => {
    const huge = new CedanaError('IMAGE_CORRUPT', `bad ${'é'.repeat(50_000)}\ud800`, { hint: 'h', detail: { log: 'x'.repeat(1_000_000) } })
    await start({ run: () => Promise.reject(huge) })
    const got = await client()
      .run(RUN)
      .catch((thrown: unknown) => thrown)
    expect(got).toMatchObject({ code: 'IMAGE_CORRUPT' })
    expect((got as Error).message.length).toBeGreaterThan(400)
  })

  it('keep unknown failures to the daemon: no request, no environment in the log', async () => {
    await start({})
    await expect(client().run({ ...RUN, environment: { SECRET: 'hunter2' } })).rejects.toMatchObject({
      code: 'BUG',
      message: 'unexpected call of run',
    })
    expect(JSON.stringify(lines)).not.toContain('hunter2')
    expect(lines.at(-1)).toMatchObject({ level: 'error', fields: { code: 'BUG' } })
  })

  it('say that there is no daemon', async () => {
    await expect(client().version()).rejects.toMatchObject({
      code: 'DAEMON_UNREACHABLE',
      message: `no daemon at ${socket}`,
      hint: 'start it with: cedana daemon start',
    })
  })

  it('say that nobody listens on a socket left behind', async () => {
    leaveStaleSocket(socket)
    await expect(client().version()).rejects.toMatchObject({ code: 'DAEMON_UNREACHABLE' })
  })
})

describe('time limits and cancellation', () => {
  const waiting = (seen: (reason: unknown) => void, begun = (): void => {}): Partial<Verbs> => ({
    run: (call: Call) =>
      new Promise((_resolve, reject) => {
        call.signal.addEventListener('abort', () => {
          seen(call.signal.reason)
          reject(call.signal.reason as Error)
        })
        begun()
      }),
    dump: (call: Call) =>
      new Promise((_resolve, reject) => {
        call.signal.addEventListener('abort', () => {
          seen(call.signal.reason)
          reject(call.signal.reason as Error)
        })
        begun()
      }),
  })

  it('end a call at its deadline, on both sides', async () => {
    let reason: unknown
    await start(waiting((one) => (reason = one)))
    await expect(client().run(RUN, { timeoutMs: 1000 })).rejects.toMatchObject({ code: 'TIMEOUT' })
    await until(() => reason !== undefined)
    expect(reason).toMatchObject({ code: 'TIMEOUT' })
  })

  it.each(['run', 'dump'] as const)('tell %s that its client went away', async (verb) => {
    let reason: unknown
    const controller = new AbortController()
    await start(
      waiting(
        (one) => (reason = one),
        () => controller.abort(),
      ),
    )
    const call = (
      verb === 'run' ? client().run(RUN, { signal: controller.signal }) : client().dump(DUMP, { signal: controller.signal })
    ).catch((thrown: unknown) => thrown)
    expect(await call).toMatchObject({ code: 'CANCELLED' })
    await until(() => reason !== undefined)
    expect(reason).toMatchObject({ code: 'CANCELLED' })
  })

  it('leave the signal of a call that succeeded alone', async () => {
    let signal: AbortSignal | undefined
    await start({
      killJobs: async (call) => {
        signal = call.signal
        return []
      },
    })
    const engine = client()
    await engine.killJobs({ jids: [], all: true, signal: 0, graceMs: 0 })
    engine.close()
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(signal?.aborted).toBe(false)
  })

  it('close() lets a short call end and cancels a long one', async () => {
    let reason: unknown
    let begun = 0
    let letEnd = (): void => {}
    const ending = new Promise<void>((resolve) => (letEnd = resolve))
    const server = await start({
      ...waiting(
        (one) => (reason = one),
        () => begun++,
      ),
      killJobs: async () => {
        begun++
        await ending
        return ['done']
      },
    })
    const engine = client()
    const short = engine.killJobs({ jids: ['a'], all: false, signal: 0, graceMs: 0 })
    const long = engine.run(RUN).catch((thrown: unknown) => thrown)
    await until(() => begun === 2)
    const closed = server.close(400)
    letEnd()
    await closed
    expect(await short).toEqual(['done'])
    expect(await long).toMatchObject({ code: 'CANCELLED', message: 'the daemon is stopping' })
    expect(reason).toMatchObject({ code: 'CANCELLED' })
    expect(existsSync(socket)).toBe(false)
  })
})

describe('attach', () => {
  async function* words(...list: AttachInput[]): AsyncGenerator<AttachInput> {
    yield* list
  }

  it('carries both directions to the exit status', async () => {
    await start({
      attach: async function* (_call, request, input) {
        expect(request).toEqual({ jid: 'train', pid: 0, windowSize: { rows: 1, columns: 2 } })
        yield { kind: 'tty', tty: false }
        for await (const one of input) {
          if (one.kind === 'stdin') yield { kind: 'stdout', bytes: one.bytes }
          if (one.kind === 'window') yield { kind: 'stderr', bytes: Buffer.from(`${one.size.rows}x${one.size.columns}`) }
          if (one.kind === 'eof') break
        }
        yield { kind: 'exit', exit: { signal: 15 } }
      },
    })
    const input = words(
      { kind: 'stdin', bytes: Buffer.from('hi') },
      { kind: 'window', size: { rows: 99_999, columns: 80 } },
      { kind: 'eof' },
    )
    const got: AttachOutput[] = []
    for await (const one of client().attach({ jid: 'train', pid: 0, windowSize: { rows: 1, columns: 2 } }, input)) got.push(one)
    expect(got).toEqual([
      { kind: 'tty', tty: false },
      { kind: 'stdout', bytes: Buffer.from('hi') },
      { kind: 'stderr', bytes: Buffer.from('65535x80') },
      { kind: 'exit', exit: { signal: 15 } },
    ])
  })

  it('fails with the error of the daemon', async () => {
    await start({
      attach: async function* () {
        throw new CedanaError('NOT_ATTACHABLE', 'job train is not attachable')
      },
    })
    const stream = client().attach({ jid: 'train', pid: 0, windowSize: undefined }, words())
    await expect(stream[Symbol.asyncIterator]().next()).rejects.toMatchObject({ code: 'NOT_ATTACHABLE' })
  })

  it('holds the daemon back while the client does not read, and the client while the daemon does not', async () => {
    const chunk = Buffer.alloc(256 * 1024, 120)
    let sent = 0
    let received = 0
    let release = (): void => {}
    const gate = new Promise<void>((resolve) => (release = resolve))
    await start({
      attach: async function* (_call, request, input) {
        if (request.jid === 'out') {
          for (; sent < 200; sent++) yield { kind: 'stdout', bytes: chunk }
        } else {
          yield { kind: 'tty', tty: false }
          await gate
          for await (const one of input) if (one.kind === 'eof') break
        }
        yield { kind: 'exit', exit: { code: 0 } }
      },
    })
    async function* endless(): AsyncGenerator<AttachInput> {
      for (let n = 0; n < 200; n++) {
        sent++
        yield { kind: 'stdin', bytes: chunk }
      }
      yield { kind: 'eof' }
    }
    const out = client().attach({ jid: 'out', pid: 0, windowSize: undefined }, words())[Symbol.asyncIterator]()
    await out.next()
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect(sent).toBeLessThan(120)
    for (let next = await out.next(); next.done !== true; next = await out.next()) if (next.value.kind === 'stdout') received++
    expect(received).toBe(199)

    sent = 0
    const into = client().attach({ jid: 'in', pid: 0, windowSize: undefined }, endless())[Symbol.asyncIterator]()
    await into.next()
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect(sent).toBeLessThan(120)
    release()
    expect((await into.next()).value).toEqual({ kind: 'exit', exit: { code: 0 } })
    expect(sent).toBe(200)
  }, 20_000)

  it('tells the daemon when the client leaves, and the client when the daemon stops', async () => {
    let left = false
    const server = await start({
      attach: async function* (call) {
        yield { kind: 'tty', tty: true }
        await new Promise((resolve) => call.signal.addEventListener('abort', resolve))
        left = true
      },
    })
    for await (const one of client().attach({ jid: 'a', pid: 0, windowSize: undefined }, words())) {
      expect(one.kind).toBe('tty')
      break
    }
    await until(() => left)
    const second = client().attach({ jid: 'a', pid: 0, windowSize: undefined }, words())[Symbol.asyncIterator]()
    await second.next()
    const end = second.next().catch((thrown: unknown) => thrown)
    await server.close(5000)
    expect(await end).toMatchObject({ code: 'CANCELLED', message: 'the daemon is stopping' })
  })
})

describe('who is asking', () => {
  it('never takes one connection for another', async () => {
    let next = 0
    await start(
      { killJobs: async (call) => [String(call.caller.uid)] },
      { peerCredentials: () => ({ uid: next++, gid: 0, groups: [], pid: 0 }) },
    )
    const { killJobs } = DaemonServiceService
    // grpc-js shares one connection between the clients of an address, unless told otherwise.
    const clients = Array.from(
      { length: 30 },
      () => new Client(`unix:${socket}`, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 }),
    )
    open.push(...clients)
    const ask = (one: Client): Promise<string | undefined> =>
      new Promise((resolve, reject) => {
        const request = { jids: [], all: true, signal: 0, graceMs: 0 }
        one.makeUnaryRequest(killJobs.path, killJobs.requestSerialize, killJobs.responseDeserialize, request, (error, response) =>
          error === null ? resolve(response?.messages[0]) : reject(error),
        )
      })
    const first = await Promise.all(clients.map(ask))
    expect(new Set(first).size).toBe(30)
    for (let round = 0; round < 5; round++) expect(await Promise.all(clients.map(ask))).toEqual(first)
    // A connection that takes the place (and perhaps the descriptor) of another is somebody else.
    clients.slice(0, 10).forEach((one) => one.close())
    const late = new Client(`unix:${socket}`, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 })
    open.push(late)
    expect(await ask(late)).toBe('30')
  })

  it.runIf(process.getuid?.() === 0 && spawnSync('python3', ['-V']).status === 0)('knows two users apart by their sockets', async () => {
    chmodSync(directory, 0o755)
    await start({ killJobs: async ({ caller }) => [`${caller.uid} ${caller.gid}`] }, { mode: 0o666, peerCredentials: kernelCredentials })
    const script = `
      const { Client, credentials } = require(${JSON.stringify(createRequire(import.meta.url).resolve('@grpc/grpc-js'))})
      const client = new Client('unix:${socket}', credentials.createInsecure())
      client.makeUnaryRequest('/cedana.v1.DaemonService/KillJobs', (b) => b, (b) => b, Buffer.alloc(0), (error, reply) => {
        console.log(error ? error.message : reply.subarray(2).toString())
        client.close()
      })`
    const as = async (uid: number, gid: number): Promise<string> =>
      (await promisify(execFile)(process.execPath, ['-e', script], { uid, gid, cwd: '/' })).stdout.trim()
    expect(await Promise.all([as(1234, 1235), as(0, 0), as(4321, 5), as(1234, 7)])).toEqual(['1234 1235', '0 0', '4321 5', '1234 7'])
  })

  it('asks callers over tcp for the token', async () => {
    const server = await start(
      { killJobs: async (call) => [String(call.caller.uid)], version: () => ({ version: '1', criu: '', kernel: '', pid: 1 }) },
      { endpoint: parseEndpoint('tcp', '127.0.0.1:0') },
    )
    const tokenFile = join(directory, 'token')
    expect(statSync(tokenFile).mode & 0o777).toBe(0o600)
    const tcp = { protocol: 'tcp' as const, address: server.address }
    expect(await client(server.address, { ...tcp, tokenFile }).killJobs({ jids: [], all: true, signal: 0, graceMs: 0 })).toEqual(['0'])

    const wrong = join(directory, 'wrong')
    writeFileSync(wrong, 'w'.repeat(32), { mode: 0o600 })
    await expect(client(server.address, { ...tcp, tokenFile: wrong }).version()).rejects.toMatchObject({
      code: 'PERMISSION_DENIED',
      message: 'wrong token',
    })
    chmodSync(wrong, 0o644)
    expect(() => client(server.address, { ...tcp, tokenFile: wrong })).toThrow(/open to others/)
    expect(() => client(server.address, { ...tcp, tokenFile: join(directory, 'none') })).toThrow(
      `cannot read the token file ${join(directory, 'none')}: no such file or directory`,
    )

    const bare = new Client(server.address, credentials.createInsecure())
    open.push(bare)
    const failure = await new Promise<unknown>((resolve) =>
      bare.makeUnaryRequest(
        '/cedana.v1.DaemonService/Version',
        () => Buffer.alloc(0),
        (bytes) => bytes,
        {},
        new Metadata(),
        resolve,
      ),
    )
    expect(failure).toMatchObject({ code: 7, details: 'callers over tcp must present a token' })
  })
})

/** SO_PEERCRED, read by a helper that takes a copy of the descriptor. */
function kernelCredentials(fd: number): Caller {
  const script = `
import ctypes, os, socket, struct, sys
copy = ctypes.CDLL(None).syscall(438, os.pidfd_open(int(sys.argv[1])), int(sys.argv[2]), 0)
print(*struct.unpack('iii', socket.socket(fileno=copy).getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))`
  const [pid = -1, uid = -1, gid = -1] = spawnSync('python3', ['-c', script, String(process.pid), String(fd)], { encoding: 'utf8' })
    .stdout.split(' ')
    .map(Number)
  return { pid, uid, gid, groups: [] }
}

function leaveStaleSocket(path: string): void {
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`
  spawnSync(process.execPath, ['-e', script])
  expect(lstatSync(path).isSocket()).toBe(true)
}

describe('the unix socket', () => {
  it('has the mode of the configuration', async () => {
    await start({})
    expect(statSync(socket).mode & 0o777).toBe(0o660)
  })

  it.runIf(process.getuid?.() === 0)('belongs to the group where there is one', async () => {
    await start({}, { group: 'daemon' })
    const [, , gid] = readFileSync('/etc/group', 'utf8')
      .split('\n')
      .find((line) => line.startsWith('daemon:'))!
      .split(':')
    expect(statSync(socket).gid).toBe(Number(gid))
  })

  it('replaces one that a dead daemon left', async () => {
    leaveStaleSocket(socket)
    await start({ version: () => ({ version: '1', criu: '', kernel: '', pid: 1 }) })
    expect(await client().version()).toMatchObject({ version: '1' })
  })

  it('is refused while a daemon lives there, or something else is', async () => {
    await start({})
    await expect(serve(fake({}), options())).rejects.toMatchObject({
      code: 'HOST_UNFIT',
      message: `a daemon is already listening at ${socket}`,
    })
    const file = join(directory, 'file')
    writeFileSync(file, '')
    await expect(serve(fake({}), options({ endpoint: parseEndpoint('unix', file) }))).rejects.toMatchObject({
      code: 'HOST_UNFIT',
      message: `${file} exists and is not a socket`,
    })
    expect(existsSync(file)).toBe(true)
  })

  it('is left alone at the end when it is another daemon’s by then', async () => {
    const server = await start({})
    rmSync(socket)
    const other: Server = createServer()
    await new Promise<void>((resolve) => other.listen(socket, resolve))
    open.push({ close: () => new Promise((resolve) => other.close(resolve)) })
    await server.close(0)
    expect(existsSync(socket)).toBe(true)
  })
})

describe('standard services', () => {
  const ask = (path: string, request: Buffer): Promise<Buffer> => {
    const bare = new Client(`unix:${socket}`, credentials.createInsecure())
    open.push(bare)
    return new Promise((resolve, reject) => {
      const call = bare.makeBidiStreamRequest(
        path,
        (bytes: Buffer) => bytes,
        (bytes: Buffer) => bytes,
      )
      call.on('data', resolve).on('error', reject)
      call.write(request)
      call.end()
    })
  }

  it('answers health checks', async () => {
    await start({})
    expect(await ask('/grpc.health.v1.Health/Check', Buffer.alloc(0))).toEqual(Buffer.from([8, 1]))
  })

  it('describes the API', async () => {
    await start({})
    const list = await ask('/grpc.reflection.v1.ServerReflection/ServerReflectionInfo', Buffer.from([0x3a, 1, 0x2a]))
    expect(list.toString()).toContain('cedana.v1.DaemonService')
    const name = Buffer.from('cedana.v1.DumpRequest')
    const file = await ask(
      '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
      Buffer.concat([Buffer.from([0x22, name.length]), name]),
    )
    expect(file.toString()).toContain('criu_opts')
  })
})

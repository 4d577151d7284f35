import { expect, test } from 'vitest'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { AttachInput, AttachOutput, Engine, JobView } from '../../daemon/api/engine.js'
import { fakeJob, runFake, type FakeOptions } from '../../../test/support/fake-world.js'
import { PassThrough } from 'node:stream'

type Attach = Engine['attach']
const run = (attach: Attach, options: Omit<FakeOptions, 'engine'> & { getJob?: Engine['getJob'] } = {}) => {
  const { getJob = async () => fakeJob({ endReason: 'killed' }), ...rest } = options
  return runFake(['job', 'attach', 'train'], { engine: { attach, getJob }, ...rest })
}
async function* outputs(...list: AttachOutput[]): AsyncGenerator<AttachOutput> {
  yield* list
}

test('input reaches the job, its end too', async () => {
  const got: AttachInput[] = []
  const attach: Attach = async function* (_request, input) {
    yield { kind: 'tty', tty: false }
    for await (const part of input) {
      got.push(part)
      if (part.kind === 'eof') break
    }
    yield { kind: 'exit', exit: { code: 3 } }
  }
  expect(await run(attach, { stdin: 'hi' })).toMatchObject({ code: 3 })
  expect(got).toEqual([{ kind: 'stdin', bytes: Buffer.from('hi') }, { kind: 'eof' }])
})

test('the detach keys of a terminal end it, the job goes on', async () => {
  const stdin = new PassThrough()
  const attach: Attach = async function* (_request, input, options) {
    yield { kind: 'tty', tty: true }
    stdin.write(Buffer.from([104, 16, 17]))
    const first = await input[Symbol.asyncIterator]().next()
    expect(first.value).toEqual({ kind: 'stdin', bytes: Uint8Array.from([104]) })
    expect(options?.signal?.aborted).toBe(true)
    throw new CedanaError('CANCELLED', 'cancelled')
  }
  expect(await run(attach, { stdin, isTTY: true })).toMatchObject({ code: 130, stderr: 'Detached\n' })
})

test('killed by a signal; dumped', async () => {
  const exit: AttachOutput = { kind: 'exit', exit: { signal: 9 } }
  expect(await run(() => outputs(exit))).toMatchObject({ code: 137 })
  // The end is recorded a moment later.
  let asked = 0
  const getJob = async () => fakeJob({ endReason: asked++ === 0 ? '' : 'dumped' })
  const outcome = await run(() => outputs(exit), { getJob })
  expect(outcome).toMatchObject({ code: 75, stderr: 'Job train was dumped; bring it back with: cedana restore job train\n' })
})

test('dumped, attached to by its PID; the terminal is as it was when that is said', async () => {
  const modes: boolean[] = []
  const stdin = new PassThrough().on('raw', (isRaw: boolean) => modes.push(isRaw))
  const attach: Attach = () => outputs({ kind: 'tty', tty: true }, { kind: 'exit', exit: { signal: 9 } })
  let atEnd: readonly boolean[] = []
  const listJobs = async (): Promise<JobView[]> => {
    atEnd = [...modes]
    return [fakeJob({ jid: 'other', pid: 5 }), fakeJob({ pid: 4711, endReason: 'dumped' })]
  }
  const outcome = await runFake(['attach', '4711'], { engine: { attach, listJobs }, stdin, isTTY: true })
  expect(outcome).toMatchObject({ code: 75, stderr: 'Job train was dumped; bring it back with: cedana restore job train\n' })
  expect(atEnd).toEqual([true, false])
})

test('the daemon went away', async () => {
  const attach: Attach = async function* () {
    yield { kind: 'stdout', bytes: Buffer.from('x') }
    throw new CedanaError('DAEMON_UNREACHABLE', 'connection dropped')
  }
  expect(await run(attach)).toMatchObject({
    code: 1,
    stdout: 'x',
    stderr:
      'Error: Unavailable: the connection to the daemon was lost; job train goes on\n  → when the daemon is back: cedana job attach train\n',
  })
})

test('the daemon stopped in order', async () => {
  const attach: Attach = async function* () {
    yield { kind: 'tty', tty: false }
    throw new CedanaError('CANCELLED', 'the daemon is stopping')
  }
  const { code, stderr } = await run(attach)
  expect(code).toBe(1)
  expect(stderr).toContain('job train goes on\n  → when the daemon is back: cedana job attach train\n')
})

test('a stream that ends without the exit code: the job knows it', async () => {
  const nothing = () => outputs({ kind: 'tty', tty: false })
  expect(await run(nothing, { getJob: async () => fakeJob({ isRunning: false, exit: { code: 4 } }) })).toMatchObject({
    code: 4,
    stderr: '',
  })
  expect((await run(nothing, { getJob: async () => fakeJob() })).stderr).toContain('job train goes on')
})

test('a job that cannot be attached to', async () => {
  const attach: Attach = async function* () {
    throw new CedanaError('NOT_ATTACHABLE', 'process 1 has no IO slave')
  }
  expect(await run(attach)).toMatchObject({ code: 1, stderr: 'Error: NotFound: process 1 has no IO slave\n' })
})

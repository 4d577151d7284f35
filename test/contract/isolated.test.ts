/** A plugin in a process of its own is the plugin that it is in this one: whatever the contract hands over passes. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { writeDescription } from '../../src/daemon/plugins/store.js'
import type { Host } from '../../src/plugins/contract/host.js'
import type { ParsedOptions } from '../../src/plugins/contract/options.js'
import type { DumpContext, LaunchContext, RestoreContext, SaveContext } from '../../src/plugins/contract/runtime.js'
import { type OpenPlugin, openPlugin, runtimeCases, type RuntimeWorld, testHost } from '../../src/testing.js'
import { writePackage } from '../support/plugin-package.js'
import { children, isAlive, processInfo } from '../support/processes.js'
import { until } from '../support/wait.js'

const directory = mkdtempSync(join(tmpdir(), 'cedana-isolated-'))
const { host, close } = testHost()
let opened: OpenPlugin
const flag = (name: string): string => join(directory, name)

beforeAll(async () => {
  const home = writePackage(join(directory, 'alien'), {
    name: 'alien',
    first: "import fs from 'node:fs'",
    dump: `async (host, { identity }) => {
      const bytes = new Uint8Array([0, 255, 128])
      if (identity.throws) throw new CedanaError('TARGET_UNFIT', 'no', { hint: 'do', detail: { a: 1 }, cause: new Error('why') })
      if (identity.delegates) return host.delegate('process', 'dump', ...identity.delegates)
      return { criu: { shell_job: true }, attachments: [{ name: 'a', content: bytes }], problems: [] }
    }`,
    more: {
      freeze: '(host, target) => host.stopTree(target)',
      unfreeze: '(host, target) => host.continueTree(target)',
      kill: `async (host, target, signal, identity) => {
        host.log.info({ signal }, 'told')
        const cancel = new AbortController()
        setTimeout(() => cancel.abort(), 50)
        const cut = { ...host, signal: cancel.signal }
        const reason = await cut.exec(['sleep', '1000']).catch((thrown) => thrown.code)
        fs.writeFileSync(identity.tells, reason)
      }`,
      save: `async (host, { directory }) => {
        fs.writeFileSync(directory + '/saved', '')
        return async () => fs.rmSync(directory + '/saved')
      }`,
      launch: `async (host, context, { file }) => {
        let text = ''
        for await (const part of context.read(file)) text += Buffer.from(part).toString()
        await context.writeProgram(file + '.copy', text + context.environment.A)
        await context.writeFile(file + '.note', 'noted')
        await context.announce({ pid: context.pid, startTicks: '1' })
      }`,
      upcoming: `async (host, { pid, note }) => {
        const wakeups = host.wakeups()
        try {
          wakeups.directory(note)
          while (!(await host.exists(note + '/pid'))) await wakeups.next()
          return host.identify(Number(await host.readText(note + '/pid')))
        } finally {
          wakeups[Symbol.dispose]()
        }
      }`,
    },
    restore: `async (host, { attachment }) => ({ criu: { seen: [...(await attachment('a'))] }, inherit: [], problems: [] })`,
  })
  await writeDescription(home, { check: false, limitMs: 10_000 })
  opened = await openPlugin(home)
}, 30_000)
afterAll(() => {
  opened.close()
  close()
  rmSync(directory, { recursive: true })
})

const workers = (): number[] => children(process.pid).filter((pid) => processInfo(pid)?.command.includes('plugin-worker'))

/** A shell with a child. */
const world = (): RuntimeWorld => ({
  host,
  run: { program: '/bin/true', args: [] },
  absent: { options: { pid: 2 ** 22 + 1, note: directory }, code: 'NO_SUCH_PROCESS' },
  start: async () => {
    const child = spawn('/bin/sh', ['-c', 'sleep 100 & echo ready; wait'], { stdio: ['ignore', 'pipe', 'ignore'], detached: true })
    await once(child.stdout, 'data')
    const target = await host.identify(child.pid ?? 0)
    const note = mkdtempSync(flag('note-'))
    writeFileSync(join(note, 'pid'), String(child.pid))
    return {
      target,
      options: { pid: target.pid, note },
      stop: async () => {
        const ended = once(child, 'exit')
        process.kill(-Number(target.pid), 'SIGKILL')
        await ended
      },
    }
  },
})

test('it passes the conformance suite', async () => {
  const cases = runtimeCases(opened.plugin, world)
  expect(cases.length).toBeGreaterThan(8)
  for (const { name, run } of cases)
    await run().catch((cause: unknown) => {
      throw new Error(name, { cause })
    })
})

describe('from one process to the other', () => {
  const verbs = () => opened.plugin.load()
  const context = (identity: ParsedOptions): DumpContext => ({ identity }) as DumpContext
  const given = async (more: Partial<Host> = {}): Promise<Host> => ({ ...host, ...more })

  test('bytes', async () => {
    const { dump, restore } = await verbs()
    const plan = await dump!(host, context({}), {})
    expect(plan).toEqual({ criu: { shell_job: true }, attachments: [{ name: 'a', content: expect.any(Uint8Array) }], problems: [] })
    const [attachment] = plan.attachments
    expect([...attachment!.content]).toEqual([0, 255, 128])
    const saved = { attachment: async () => attachment!.content } as unknown as RestoreContext
    expect((await restore!(host, saved, {})).criu).toEqual({ seen: [0, 255, 128] })
  })

  test('errors, with all that they say', async () => {
    const { dump } = await verbs()
    await expect(dump!(host, context({ throws: true }), {})).rejects.toMatchObject({
      ...{ code: 'TARGET_UNFIT', message: 'no', hint: 'do', detail: { a: 1 } },
      cause: { message: 'why' },
    })
  })

  test('the verb of another runtime', async () => {
    const { dump } = await verbs()
    const asked: unknown[] = []
    const delegate = async (...args: readonly unknown[]): Promise<never> => {
      asked.push(...args)
      return { criu: {}, attachments: [], problems: [] } as never
    }
    await dump!(await given({ delegate }), context({ delegates: [{ a: [1] }, {}] }), {})
    expect(asked).toEqual(['process', 'dump', { a: [1] }, {}])
  })

  test('what takes back what was saved', async () => {
    const { save } = await verbs()
    const undo = await save!(host, { directory } as SaveContext, {})
    expect(readFileSync(flag('saved'), 'utf8')).toBe('')
    await undo()
    expect(() => readFileSync(flag('saved'))).toThrow('ENOENT')
  })

  test('what is logged, and a signal of its own', async () => {
    const { kill } = await verbs()
    const logged: unknown[] = []
    const log = { ...host.log, info: (fields: object, message: string) => void logged.push(fields, message) }
    await kill!(await given({ log }), { pid: 1 } as never, 15, { tells: flag('reason') })
    expect(logged).toEqual([{ signal: 15 }, 'told'])
    expect(readFileSync(flag('reason'), 'utf8')).toBe('CANCELLED')
  })

  test('a launch', async () => {
    const { launch } = await verbs()
    const announced: unknown[] = []
    const written = new Map<string, string>()
    const launching: LaunchContext = {
      ...{ pid: 7, environment: { A: 'b' } },
      announce: async (target) => void announced.push(target),
      read: async function* (path) {
        yield Buffer.from(`${path}:`)
        yield new Uint8Array(70_000).fill(97)
      },
      writeFile: async (path, text) => void written.set(path, text),
      writeProgram: async (path, text) => void written.set(path, text),
    }
    await launch!(host, launching, { file: '/x' })
    expect(announced).toEqual([{ pid: 7, startTicks: '1' }])
    expect(written.get('/x.copy')).toBe(`/x:${'a'.repeat(70_000)}b`)
    expect(written.get('/x.note')).toBe('noted')
  })

  test('a wake-up', async () => {
    const { upcoming } = await verbs()
    const note = flag('soon')
    mkdirSync(note)
    const waiting = upcoming!(host, { pid: 1, note })
    writeFileSync(join(note, 'pid'), String(process.pid))
    expect(await waiting).toEqual(await host.identify(process.pid))
  })
})

test('closed, its process ends', async () => {
  const before = new Set(workers())
  const another = await openPlugin(join(directory, 'alien'))
  const own = workers().filter((pid) => !before.has(pid))
  expect(own).toHaveLength(1)
  another.close()
  await until('it has ended', async () => !own.some(isAlive))
})

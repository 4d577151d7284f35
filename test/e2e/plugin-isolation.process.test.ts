/** Code of plugins that computes without end, ends its process, and worse: it is told of, its operation is undone, and nobody else notices. */
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { PluginView } from '../../src/daemon/api/engine.js'
import { writePackage } from '../support/plugin-package.js'
import { isAlive, markedProcesses, processInfo } from '../support/processes.js'
import { until } from '../support/wait.js'
import { type Job, useWorld } from '../support/world.js'

const VERB_MS = 1500
const LATE = `within ${VERB_MS / 1000} s`
const world = useWorld({ env: { CEDANA_PLUGINS_VERB_TIMEOUT_MS: String(VERB_MS) } })

/** What the plugin does next is the content of this file: JavaScript, run in the verb of the same name. */
const orders = (): string => join(world.dir, 'orders')
const order = (verb: string, code: string): void => writeFileSync(orders(), JSON.stringify({ verb, code }))
const obey = (verb: string, otherwise: string): string => `async (host, ...rest) => {
  const order = existsSync(ORDERS) ? JSON.parse(readFileSync(ORDERS, 'utf8')) : {}
  if (order.verb === '${verb}') return await new Function('host', 'fs', 'child', 'rest', order.code)(host, fs, child, rest)
  ${otherwise}
}`
/** A file that a plugin makes, or waits for. */
const flag = (name: string): string => join(world.dir, name)

/** A job of another runtime. */
let bystander: Job
/** What the plugin is to dump. */
let target: Job
beforeAll(async () => {
  bystander = await world.job('eventfd')
  target = await world.foreign('eventfd')
  const directory = writePackage(join(world.work(), 'alien'), {
    name: 'alien',
    first: `
      import fs, { existsSync, readFileSync } from 'node:fs'
      import child from 'node:child_process'
      const ORDERS = ${JSON.stringify(orders())}
      if (existsSync(ORDERS) && JSON.parse(readFileSync(ORDERS, 'utf8')).verb === 'import') throw new Error('spoilt')`,
    dump: obey('dump', `return { criu: {}, attachments: [], problems: [], ...(order.verb === 'save' ? { save: 'also' } : {}) }`),
    resolve: obey('resolve', 'return host.identify(rest[0].pid)'),
    more: {
      query: obey('query', "return { columns: ['A'], rows: [{ cells: { A: 'b' }, state: {} }], messages: [] }"),
      upcoming: obey('upcoming', 'return host.identify(rest[0].pid)'),
      save: obey('save', 'return async () => {}'),
      exitStatus: obey('exitStatus', 'return { code: 3 }'),
    },
  })
  await world.ok(['plugin', 'manifest', directory])
  await world.ok(['plugin', 'install', directory])
}, 60_000)
beforeEach(() => rmSync(orders(), { force: true }))
afterAll(async () => {
  await target.verify()
  await bystander.verify()
})

const problem = async (): Promise<string> => {
  const [one] = JSON.parse((await world.ok(['plugin', 'list', 'alien', '-o', 'json'])).stdout) as PluginView[]
  return one?.problem ?? 'not listed'
}
const dumping = (): string[] => ['dump', 'alien', String(target.pid), '--leave-running']
/** Of this world, by a part of their command lines. */
const running = (command: string): number[] =>
  markedProcesses(world.mark).flatMap((one) => (one.command.includes(command) ? [one.pid] : []))
const workers = (): number[] => running('plugin-worker')

/** Everybody else has what they want, whatever the plugin does. */
async function othersGoOn(): Promise<void> {
  expect((await world.ok(['ps'])).stdout).toContain(bystander.jid)
  await world.quick(['dump', 'job', bystander.jid, '--leave-running'])
  await world.ok(['query', 'process', String(bystander.pid)])
}

describe('a verb that', () => {
  const misdeeds: readonly (readonly [what: string, code: string, message: string])[] = [
    ['computes without end', 'while (true);', `plugin alien did not finish dump ${LATE}`],
    ['waits in a synchronous call', "child.execFileSync('sleep', ['1357'])", `plugin alien did not finish dump ${LATE}`],
    [
      'waits for a program that does not want to end',
      `return host.exec(['sh', '-c', 'trap "" TERM; while :; do sleep 0.1; done; : 1357'])`,
      `plugin alien did not finish dump ${LATE}`,
    ],
    ['starts programs without end', "for (;;) host.exec(['sleep', '1357']).catch(() => {})", `plugin alien did not finish dump ${LATE}`],
    ['ends its process', 'process.exit(3)', 'plugin alien failed in dump: it ended its process (exit code 3)'],
    [
      'ends its process and leaves a program behind',
      "child.spawn('sleep', ['1357'], { stdio: 'ignore' }); process.exit(4)",
      'plugin alien failed in dump: it ended its process (exit code 4)',
    ],
    [
      'kills its process in the middle of host.exec',
      "void host.exec(['sleep', '1357']).catch(() => {}); await host.exec(['true']); process.kill(process.pid, 'SIGKILL'); return new Promise(() => {})",
      'plugin alien failed in dump: its process was ended by SIGKILL',
    ],
    [
      'throws where nothing waits for it',
      "setTimeout(() => { throw new Error('much later') }, 10); return new Promise(() => {})",
      'plugin alien failed in dump: much later (thrown where nothing waited for it)',
    ],
  ]
  test.each(misdeeds)('%s: told so, shown as broken, and the next one works', async (_what, code, message) => {
    const before = readdirSync(world.checkpoints)
    order('dump', code.startsWith('void') || code.includes('await') ? `return (async () => { ${code} })()` : code)
    expect((await world.fails(dumping())).stderr).toContain(message)
    expect(readdirSync(world.checkpoints)).toEqual(before)
    expect(isAlive(target.pid)).toBe(true)
    await until('what it has started is ended', async () => running('1357').length === 0)
    expect(await problem()).toBe(message)

    rmSync(orders())
    await world.ok(dumping())
    expect(await problem()).toBe('')
  })

  test.each([
    ['', 'all.push(new Array(1e6).fill(1.5))', /plugin alien failed in upcoming: it took more than 512 MiB of memory/],
    [
      'outside of the heap ',
      'all.push(Buffer.alloc(1 << 24, 1))',
      /failed in upcoming: (it took more than 512|Array buffer allocation failed)/,
    ],
  ])('takes memory %swithout end: fails, and takes nobody along', async (_where, code, message) => {
    order('upcoming', `const all = []; for (;;) ${code}`)
    expect((await world.fails(['manage', 'alien', '1', '--upcoming', '--jid', world.jid('greedy')])).stderr).toMatch(message)
    await othersGoOn()
    rmSync(orders())
    await world.ok(dumping())
  })

  test('computes for as long as it likes keeps nobody', async () => {
    order(
      'upcoming',
      `fs.writeFileSync('${flag('computes')}', ''); while (!fs.existsSync('${flag('enough')}')); return host.identify(rest[0].pid)`,
    )
    const jid = world.jid('late')
    const late = await world.foreign('eventfd')
    const managing = world.ok(['manage', 'alien', String(late.pid), '--upcoming', '--jid', jid])
    await until('it computes', async () => existsSync(flag('computes')))
    await othersGoOn()
    writeFileSync(flag('enough'), '')
    await managing
    await world.quick(['kill', jid])
    expect(await problem()).toBe('')
  })

  test('is not the only one in its process: others end with it where they must, and are told why', async () => {
    const [waits, goes] = [flag('waits'), flag('goes')]
    order(
      'upcoming',
      `fs.writeFileSync('${waits}', ''); return new Promise((done) => { const look = setInterval(() => { if (!fs.existsSync('${goes}')) return; clearInterval(look); done(host.identify(rest[0].pid)) }, 20) })`,
    )
    const [first, second] = [await world.foreign('eventfd'), await world.foreign('eventfd')]
    const wait = (job: Job, jid: string): string[] => ['manage', 'alien', String(job.pid), '--upcoming', '--jid', jid]
    // One that is only slow leaves the others alone.
    const jid = world.jid('patient')
    const patient = world.ok(wait(first, jid))
    await until('it waits', async () => existsSync(waits))
    order('dump', 'return new Promise(() => {})')
    expect((await world.fails(dumping())).stderr).toContain('did not finish dump')
    await world.ok(['query', 'alien'])
    writeFileSync(goes, '')
    await patient
    await world.quick(['kill', jid])

    for (const file of [waits, goes]) rmSync(file)
    order('upcoming', `fs.writeFileSync('${waits}', ''); return new Promise(() => {})`)
    const lost = world.fails(wait(second, world.jid('lost')))
    await until('it waits', async () => existsSync(waits))
    order('dump', 'while (true);')
    expect((await world.fails(dumping())).stderr).toContain('did not finish dump')
    expect((await lost).stderr).toContain('plugin alien failed in upcoming: its process was ended, because dump did not end')
    expect(await problem()).toContain('did not finish dump')
  })

  test.each([
    ['ends its process', 'process.exit(3)', 'plugin alien failed in save: it ended its process (exit code 3)'],
    ['computes without end', 'while (true);', `plugin alien did not finish save ${LATE}`],
  ])('%s while the target stands still: it runs on, and nothing is sealed', async (_what, code, message) => {
    const before = readdirSync(world.checkpoints)
    order('save', code)
    expect((await world.fails(['dump', 'alien', String(target.pid)])).stderr).toContain(message)
    expect(readdirSync(world.checkpoints)).toEqual(before)
    await until('it runs', async () => ['S', 'R'].includes(processInfo(target.pid)?.state ?? ''))
  })

  test('lists, or tells how a job has ended: neither keeps ps', async () => {
    order('query', 'while (true);')
    const asked = world.fails(['query', 'alien'])
    await othersGoOn()
    expect((await asked).stderr).toContain(`plugin alien did not finish query ${LATE}`)

    const jid = world.jid('ended')
    const ended = await world.foreign('eventfd')
    await world.ok(['manage', 'alien', String(ended.pid), '--jid', jid])
    order('exitStatus', 'while (true);')
    process.kill(ended.pid, 'SIGKILL')
    await othersGoOn()
    await until('it is over', async () => (await world.row(jid))?.[3] === 'halted', 30_000)
  })

  test('is cancelled and does not end: its process does', async () => {
    order('upcoming', `fs.writeFileSync('${flag('stuck')}', String(process.pid)); while (true);`)
    const waiting = world.cedana(['manage', 'alien', '1', '--upcoming', '--jid', world.jid('never')], { timeoutMs: 60_000 })
    await until('it computes', async () => existsSync(flag('stuck')))
    const [client] = running('manage alien 1')
    const computing = workers()
    process.kill(client!, 'SIGINT')
    await waiting
    await until('its process is gone', async () => !computing.some(isAlive), 30_000)
    expect(await problem()).toBe('plugin alien did not end upcoming when it was cancelled')
    rmSync(orders())
    await world.ok(dumping())
  })
})

describe('its process', () => {
  test('that cannot start again leaves it out until plugins are loaded again', async () => {
    order('dump', 'process.exit(3)')
    await world.fails(dumping())
    order('import', '')
    expect((await world.fails(dumping())).stderr).toContain('plugin alien cannot be used: its code fails as it is loaded: spoilt')
    expect(await problem()).toBe('its code fails as it is loaded: spoilt')
    rmSync(orders())
    expect((await world.fails(dumping())).stderr).toContain('plugin alien cannot be used: its code fails as it is loaded: spoilt')
    await world.ok(['plugin', 'reload'])
    await world.ok(dumping())
  })

  test('ends with the daemon, even if that is killed and it computes', async () => {
    order('upcoming', `fs.writeFileSync('${flag('alone')}', ''); while (true);`)
    const waiting = world.cedana(['manage', 'alien', '1', '--upcoming', '--jid', world.jid('alone')])
    await until('it computes', async () => existsSync(flag('alone')))
    expect(workers()).not.toEqual([])
    await world.killDaemon()
    await waiting
    await until('it has ended', async () => workers().length === 0)
    await world.startDaemon()
  })
})

test('without a daemon it is the same', async () => {
  for (const [code, message] of [
    ['while (true);', `plugin alien did not finish dump ${LATE}`],
    ['process.exit(3)', 'plugin alien failed in dump: it ended its process (exit code 3)'],
  ] as const) {
    order('dump', code)
    expect((await world.fails([...dumping(), '--no-server'])).stderr).toContain(message)
  }
  rmSync(orders())
  await world.ok([...dumping(), '--no-server'])
})

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, readlinkSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeEach, describe, expect, it } from 'vitest'
import { until } from '../../../test/support/wait.js'
import { HostWakeups } from './wakeups.js'

const base = mkdtempSync(join(tmpdir(), 'cedana-wakeups-'))
afterAll(() => rmSync(base, { recursive: true }))

let dir = ''
let count = 0
beforeEach(() => {
  dir = join(base, String(++count))
  mkdirSync(dir)
})

const silent = { debug: () => {}, info: () => {}, warn: () => {} }
const open = (signal = new AbortController().signal): HostWakeups => new HostWakeups(signal, silent)

/** Whether a wake-up comes; all that are due are taken. */
async function wakes(wakeups: HostWakeups, ms = 10_000): Promise<boolean> {
  let woken = false
  for (;;) {
    const late = new AbortController()
    const next = wakeups.next().then(() => true)
    const came = await Promise.race([next, sleep(woken ? 100 : ms, false, { signal: late.signal })])
    late.abort()
    if (!came) return woken
    woken = true
  }
}

describe('a directory', () => {
  it('wakes for its entries, and for nobody else’s', async () => {
    using wakeups = open()
    mkdirSync(join(dir, 'web'))
    wakeups.directory(join(dir, 'web'))
    writeFileSync(join(dir, 'other'), '')
    mkdirSync(join(dir, 'db'))
    writeFileSync(join(dir, 'db/state.json'), '')
    expect(await wakes(wakeups, 50)).toBe(false)
  })

  it('wakes when a file in it is made, replaced and removed', async () => {
    using wakeups = open()
    mkdirSync(join(dir, 'web'))
    wakeups.directory(join(dir, 'web'))
    writeFileSync(join(dir, 'web/new'), '')
    expect(await wakes(wakeups)).toBe(true)
    renameSync(join(dir, 'web/new'), join(dir, 'web/state.json'))
    expect(await wakes(wakeups)).toBe(true)
    rmSync(join(dir, 'web/state.json'))
    expect(await wakes(wakeups)).toBe(true)
    expect(await wakes(wakeups, 50)).toBe(false)
  })

  it('is followed when it and those above do not exist yet', async () => {
    using wakeups = open()
    wakeups.directory(join(dir, 'run/runc/web'))
    mkdirSync(join(dir, 'run'))
    expect(await wakes(wakeups)).toBe(true)
    mkdirSync(join(dir, 'run/runc'))
    expect(await wakes(wakeups)).toBe(true)
    mkdirSync(join(dir, 'run/runc/web'))
    expect(await wakes(wakeups)).toBe(true)
    writeFileSync(join(dir, 'run/runc/web/state.json'), '')
    expect(await wakes(wakeups)).toBe(true)
  })

  it('is followed when all of it is made at once, and taken away, and made again', async () => {
    using wakeups = open()
    wakeups.directory(join(dir, 'run/runc/web'))
    for (let round = 0; round < 20; round++) {
      mkdirSync(join(dir, 'run/runc/web'), { recursive: true })
      await wakeups.next()
      if (round % 2 === 0) await wakes(wakeups, 20)
      writeFileSync(join(dir, 'run/runc/web/state.json'), '')
      await wakeups.next()
      rmSync(join(dir, 'run'), { recursive: true })
      await wakeups.next()
    }
    await wakes(wakeups, 50)
    expect(await wakes(wakeups, 50)).toBe(false)
  })

  it('is followed by several through a quick change of the directory itself', async () => {
    using first = open()
    using second = open()
    mkdirSync(join(dir, 'web'))
    for (const wakeups of [first, second]) wakeups.directory(join(dir, 'web'))
    rmSync(join(dir, 'web'), { recursive: true })
    mkdirSync(join(dir, 'web'))
    expect(await Promise.all([wakes(first), wakes(second)])).toEqual([true, true])
    writeFileSync(join(dir, 'web/state.json'), '')
    expect(await Promise.all([wakes(first), wakes(second)])).toEqual([true, true])
  })

  it('keeps what comes between two waits', async () => {
    using wakeups = open()
    wakeups.directory(join(dir, 'web'))
    mkdirSync(join(dir, 'web'))
    await sleep(20)
    await wakeups.next()
  })
})

describe('an exec', () => {
  const shell = async (): Promise<{ pid: number; go: () => void }> => {
    const child = spawn('/bin/sh', ['-c', 'echo; read line; exec sleep 100'], { stdio: ['pipe', 'pipe', 'ignore'] })
    children.push(child)
    await once(child.stdout, 'data')
    return { pid: child.pid ?? 0, go: () => child.stdin.write('go\n') }
  }
  const children: { kill(): void }[] = []
  afterAll(() => children.forEach((child) => child.kill()))

  it('wakes whoever waits for it, and nobody else', async () => {
    using first = open()
    using second = open()
    const [one, other] = [await shell(), await shell()]
    await first.exec(one.pid, async () => true)
    await second.exec(other.pid, async () => false)
    // Where the kernel says nothing, time does.
    one.go()
    await first.next()
    expect(await wakes(second, 50)).toBe(false)
  })

  it('is looked for, less and less often, where the kernel does not tell of it and it is imminent', async () => {
    using wakeups = new HostWakeups(new AbortController().signal, silent, { watch: async () => undefined })
    await wakeups.exec(1, async () => false)
    expect(await wakes(wakeups, 20)).toBe(false)
    const started = performance.now()
    for (let look = 0; look < 5; look++) {
      await wakeups.exec(1, async () => true)
      await wakeups.next()
    }
    expect(performance.now() - started).toBeGreaterThan(1 + 2 + 4 + 8 + 15)
  })

  it('leaves nothing open', async () => {
    const sockets = (): number =>
      readdirSync('/proc/self/fd').filter((fd) => {
        try {
          return readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:')
        } catch {
          return false
        }
      }).length
    const { pid } = await shell()
    const before = sockets()
    {
      using wakeups = open()
      await wakeups.exec(pid, async () => false)
      await wakeups.exec(process.pid, async () => false)
    }
    await until('the connector is closed', () => sockets() <= before)
  })
})

it('ends at once when the operation is cancelled, with its reason', async () => {
  const cancel = new AbortController()
  using wakeups = open(cancel.signal)
  wakeups.directory(join(dir, 'web'))
  const next = wakeups.next()
  cancel.abort(new Error('enough'))
  await expect(next).rejects.toThrow('enough')
  await expect(wakeups.next()).rejects.toThrow('enough')
})

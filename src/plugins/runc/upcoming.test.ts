import { describe, expect, it } from 'vitest'
import type { Host, ProcessBrief } from '../contract/host.js'
import { upcoming } from './upcoming.js'

const RUNC = { id: 'web', root: '/run/runc', runtime: 'runc' }
const CRUN = { id: 'web', root: '/run/crun', runtime: '/usr/bin/crun' }

/** A machine that changes when it is told to, and what was asked of it, in order. */
class FakeMachine {
  readonly files = new Map<string, string>()
  readonly processes = new Map<number, { startTicks: string; name: string; args?: string[]; state?: string }>()
  readonly asked: string[] = []
  isImminent: (() => Promise<boolean>) | undefined
  isClosed = false
  #cancelled: Error | undefined
  #wake: () => void = () => {}
  #isAwake = false

  change(work: () => void): void {
    work()
    this.#isAwake = true
    this.#wake()
  }
  cancel(): void {
    this.change(() => (this.#cancelled = new Error('cancelled')))
  }

  readonly host = {
    exec: async ([program]: readonly string[]) => {
      if (program === 'rnuc') throw new Error('cannot run rnuc')
      return { code: 0, stdout: '', stderr: '' }
    },
    wakeups: () => ({
      directory: (path: string) => void this.asked.push(`watch ${path}`),
      exec: async (pid: number, isImminent: () => Promise<boolean>) => {
        this.asked.push(`watch exec of ${pid}`)
        this.isImminent = isImminent
      },
      next: async () => {
        if (!this.#isAwake) await new Promise<void>((resolve) => (this.#wake = resolve))
        this.#isAwake = false
        if (this.#cancelled) throw this.#cancelled
      },
      [Symbol.dispose]: () => void (this.isClosed = true),
    }),
    exists: async (path: string) => this.files.has(path),
    readText: async (path: string) => {
      this.asked.push(`read ${path}`)
      return this.files.get(path)
    },
    brief: async (pid: number): Promise<ProcessBrief | undefined> => {
      this.asked.push(`look at ${pid}`)
      const found = this.processes.get(pid)
      if (!found) return undefined
      const { startTicks, name, args = [], state = 'S' } = found
      return { target: { pid: pid as never, startTicks, bootId: 'boot' }, name, args, state }
    },
  } as unknown as Host

  create(pid: number, startTicks: number): void {
    this.files.set('/run/runc/web/state.json', JSON.stringify({ init_process_pid: pid, init_process_start: startTicks }))
    this.files.set('/run/runc/web/exec.fifo', '')
    this.processes.set(pid, { startTicks: String(startTicks), name: 'runc:[2:INIT]', args: ['runc', 'init'] })
  }
  start(pid: number): void {
    this.files.delete('/run/runc/web/exec.fifo')
    this.processes.get(pid)!.name = 'sleep'
  }
  remove(pid: number): void {
    this.files.clear()
    this.processes.delete(pid)
  }
}

/** Long enough for everything that is due, since nothing waits for the outside. */
const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5))

function begin(machine: FakeMachine, options: object = RUNC) {
  const outcome: { pid?: number; error?: unknown } = {}
  const done = upcoming(machine.host, { ...options }).then(
    ({ pid }) => void (outcome.pid = pid),
    (error: unknown) => void (outcome.error = error),
  )
  return { outcome, done }
}

describe('upcoming', () => {
  it('watches before it looks, and once it knows the process looks at that alone', async () => {
    const machine = new FakeMachine()
    const { done, outcome } = begin(machine)
    await settle()
    machine.change(() => machine.create(7, 100))
    await settle()
    expect(outcome).toEqual({})
    expect(machine.asked).toEqual([
      'watch /run/runc/web',
      'read /run/runc/web/state.json',
      'read /run/runc/web/state.json',
      'watch exec of 7',
      'look at 7',
    ])
    machine.asked.splice(0)
    machine.change(() => machine.start(7))
    await done
    expect(outcome).toEqual({ pid: 7 })
    expect(machine.asked).toEqual(['look at 7'])
    expect(machine.isClosed).toBe(true)
  })

  it('is there at once when it runs', async () => {
    const machine = new FakeMachine()
    machine.create(7, 100)
    machine.start(7)
    const { done, outcome } = begin(machine)
    await done
    expect(outcome).toEqual({ pid: 7 })
  })

  it('outlives deletions, and takes the next', async () => {
    const machine = new FakeMachine()
    const { done, outcome } = begin(machine)
    machine.change(() => machine.create(7, 100))
    await settle()
    machine.change(() => machine.remove(7))
    await settle()
    machine.change(() => machine.create(8, 200))
    await settle()
    expect(outcome).toEqual({})
    machine.change(() => machine.start(8))
    await done
    expect(outcome).toEqual({ pid: 8 })
  })

  it('takes neither a dead process nor another of the same PID', async () => {
    const machine = new FakeMachine()
    machine.create(7, 100)
    machine.start(7)
    machine.processes.set(7, { startTicks: '999', name: 'other' })
    const { done, outcome } = begin(machine)
    await settle()
    machine.change(() => machine.processes.set(7, { startTicks: '100', name: 'sleep', state: 'Z' }))
    await settle()
    expect(outcome).toEqual({})
    machine.cancel()
    await done
    expect(outcome.error).toMatchObject({ message: 'cancelled' })
    expect(machine.isClosed).toBe(true)
  })

  it('does not begin to wait for what a runtime would make that is not there', async () => {
    const machine = new FakeMachine()
    const { outcome, done } = begin(machine, { ...RUNC, runtime: 'rnuc' })
    await done
    expect(outcome.error).toMatchObject({ message: 'cannot run rnuc' })
    expect(machine.asked).toEqual([])
  })

  it('says of an exec that it is imminent when the container has been started', async () => {
    const machine = new FakeMachine()
    const { done } = begin(machine)
    machine.change(() => machine.create(7, 100))
    await settle()
    expect(await machine.isImminent?.()).toBe(false)
    machine.files.delete('/run/runc/web/exec.fifo')
    expect(await machine.isImminent?.()).toBe(true)
    machine.cancel()
    await done
  })

  it('waits for the end of an exec that has set the name and not yet the arguments', async () => {
    const machine = new FakeMachine()
    const { done, outcome } = begin(machine)
    machine.change(() => machine.create(7, 100))
    await settle()
    machine.change(() => machine.processes.set(7, { startTicks: '100', name: 'sleep', args: [] }))
    await settle()
    expect(outcome).toEqual({})
    machine.change(() => machine.processes.set(7, { startTicks: '100', name: 'sleep', args: ['sleep', '9'] }))
    await done
    expect(outcome).toEqual({ pid: 7 })
  })

  it('knows the init of crun by its arguments', async () => {
    const machine = new FakeMachine()
    const { done, outcome } = begin(machine, CRUN)
    machine.change(() => {
      machine.files.set('/run/crun/web/status', JSON.stringify({ pid: 9, 'process-start-time': 300 }))
      machine.processes.set(9, { startTicks: '300', name: 'crun', args: ['crun', 'run', '--detach', 'web'] })
    })
    await settle()
    // On its way out, killed before it was started.
    machine.change(() => machine.processes.set(9, { startTicks: '300', name: 'crun', args: [] }))
    await settle()
    expect(outcome).toEqual({})
    machine.change(() => machine.processes.set(9, { startTicks: '300', name: 'web', args: ['web'] }))
    await done
    expect(outcome).toEqual({ pid: 9 })
  })
})

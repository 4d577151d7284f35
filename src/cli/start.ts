/** What follows when run and restore have started something: attach to it, wait for it in this process, or say so. */
import type { Engine, Started } from '../daemon/api/engine.js'
import { attach, exitCode } from './attach/attach.js'
import { DEFAULT_DETACH_KEYS, parseDetachKeys } from './attach/detach-keys.js'
import type { Session, Where } from './session.js'
import { ignoredStdio, type StdioFlags } from './shared-flags.js'
import { printStarted } from './started.js'

/** A terminal sends these to its whole foreground group: the process has them already, and Ctrl-Z stops both of us. */
const FROM_TERMINAL: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT', 'SIGWINCH', 'SIGTSTP', 'SIGCONT']
const OTHERS: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGALRM']

/** Passes signals on to the process as long as `work` lasts. */
async function forwardSignals<T>(pid: number, isTerminal: boolean, work: () => Promise<T>): Promise<T> {
  const forward = (signal: NodeJS.Signals): void => {
    try {
      process.kill(pid, signal)
    } catch {
      // It ended in this moment: its exit status is on its way.
    }
  }
  const forwarded = isTerminal ? OTHERS : [...FROM_TERMINAL, ...OTHERS]
  forwarded.forEach((signal) => process.on(signal, forward))
  try {
    return await work()
  } finally {
    forwarded.forEach((signal) => process.off(signal, forward))
  }
}

async function waitFor(engine: Engine, { jid, pid }: Started): Promise<number> {
  const nothing = (async function* (): AsyncGenerator<never> {})()
  for await (const output of engine.attach({ jid, pid, windowSize: undefined }, nothing)) {
    if (output.kind === 'exit') return exitCode(output.exit)
  }
  return 0
}

/** `start` asks the engine; `line` is what scripts read. Returns the exit code. */
export async function start(
  session: Session,
  operation: 'run' | 'restore',
  flags: StdioFlags,
  verb: { readonly where: Where; readonly start: (engine: Engine) => Promise<Started>; readonly line: (started: Started) => string },
): Promise<number | void> {
  const ignored = ignoredStdio(flags)
  if (ignored !== undefined) session.note(session.errorStyle('yellow', ignored))
  return session.ask(async (engine) => {
    const started = await verb.start(engine)
    if (verb.where.local === true) {
      const { stdin, stdout, stderr } = session.world
      session.world.holdSignals()
      const code = await forwardSignals(
        started.pid,
        [stdin, stdout, stderr].some(({ isTTY }) => isTTY),
        () => waitFor(engine, started),
      )
      started.messages.forEach((message) => session.note(message))
      await session.printProfile(operation, started.steps)
      return code
    }
    if (flags.attach !== true) return printStarted(session, operation, started, verb.line(started))
    await session.printProfile(operation, started.steps)
    started.messages.forEach((message) => session.note(message))
    return attach(session, engine, {
      jid: started.jid,
      pid: started.jid === '' ? started.pid : 0,
      detachKeys: parseDetachKeys(DEFAULT_DETACH_KEYS)!,
    })
  }, verb.where)
}

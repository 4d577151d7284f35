/** What follows when run and restore have started something: attach to it, wait for it in this process, or say so. */
import type { Engine, Started } from '../daemon/api/engine.js'
import { attach, exitCode } from './attach/attach.js'
import { DEFAULT_DETACH_KEYS, parseDetachKeys } from './attach/detach-keys.js'
import { CliError } from './exit-codes.js'
import type { Session, Where } from './session.js'
import { ignoredStdio, type StdioFlags } from './shared-flags.js'
import { printStarted } from './started.js'

/** A terminal sends these to its whole foreground group: the process has them already, and Ctrl-Z stops both of us. */
const FROM_TERMINAL: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT', 'SIGWINCH', 'SIGTSTP', 'SIGCONT']
const OTHERS: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGALRM']

/** Passes signals on to a process: those that come before it is known, as soon as it is. */
class SignalForwarder implements Disposable {
  readonly #forwarded: readonly NodeJS.Signals[]
  readonly #early: NodeJS.Signals[] = []
  #pid = 0

  constructor(isTerminal: boolean) {
    this.#forwarded = isTerminal ? OTHERS : [...FROM_TERMINAL, ...OTHERS]
    this.#forwarded.forEach((signal) => process.on(signal, this.#forward))
  }

  to(pid: number): void {
    this.#pid = pid
    this.#early.forEach(this.#forward)
  }

  readonly #forward = (signal: NodeJS.Signals): void => {
    if (this.#pid === 0) {
      this.#early.push(signal)
      return
    }
    try {
      process.kill(this.#pid, signal)
    } catch {
      // It ended in this moment: its exit status is on its way.
    }
  };

  [Symbol.dispose](): void {
    this.#forwarded.forEach((signal) => process.off(signal, this.#forward))
  }
}

async function waitFor(engine: Engine, { jid, pid }: Started): Promise<number> {
  const nothing = (async function* (): AsyncGenerator<never> {})()
  for await (const output of engine.attach({ jid, pid, windowSize: undefined }, nothing)) {
    if (output.kind === 'exit') return exitCode(output.exit)
  }
  throw new CliError(`it is not known how process ${pid} ended`)
}

/** The process has this one's standard streams, its signals, and its exit code. */
async function startHere(
  session: Session,
  engine: Engine,
  operation: 'run' | 'restore',
  begin: (engine: Engine) => Promise<Started>,
): Promise<number> {
  const { stdin, stdout, stderr } = session.world
  // A program may run before we hear of it: from its start on no signal is ours. A restore that is interrupted is undone.
  if (operation === 'run') session.world.holdSignals()
  using signals = new SignalForwarder([stdin, stdout, stderr].some(({ isTTY }) => isTTY))
  const started = await begin(engine)
  session.world.holdSignals()
  signals.to(started.pid)
  const code = await waitFor(engine, started)
  started.messages.forEach((message) => session.note(message))
  await session.printProfile(operation, started.steps)
  return code
}

interface Verb<S extends Started> {
  readonly where: Where
  readonly start: (engine: Engine) => Promise<S>
  /** What scripts read. */
  readonly line: (started: S) => string
  /** Printed instead. */
  readonly statistics?: ((started: S) => object) | undefined
}

/** Returns the exit code. */
export async function start<S extends Started>(
  session: Session,
  operation: 'run' | 'restore',
  flags: StdioFlags,
  verb: Verb<S>,
): Promise<number | void> {
  const ignored = ignoredStdio(flags)
  if (ignored !== undefined) session.note(session.errorStyle('yellow', ignored))
  return session.ask(async (engine) => {
    if (verb.where.local === true) return startHere(session, engine, operation, verb.start)
    const started = await verb.start(engine)
    if (verb.statistics) {
      for (const line of [...started.messages, verb.line(started)]) session.note(line)
      return session.printDocument(verb.statistics(started), 'json')
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

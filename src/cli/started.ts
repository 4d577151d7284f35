/** What is printed when something has been started, restored or put under management. */
import type { Started } from '../daemon/api/engine.js'
import type { Session } from './session.js'

/** Profile, messages, and the line that scripts read, last. */
export async function printStarted(session: Session, operation: string, started: Started, line: string): Promise<void> {
  await session.printProfile(operation, started.steps)
  if (session.isStructured) return session.printDocument(started, session.format!)
  if (session.options.quiet === true || session.format === 'name') return session.print(started.jid || String(started.pid))
  started.messages.forEach((message) => session.print(message))
  session.print(line)
}

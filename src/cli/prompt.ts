/** A question before something that cannot be undone. */
import { createInterface } from 'node:readline'
import { CliError } from './exit-codes.js'
import type { Session } from './session.js'

/** y or yes: true. n, no, nothing or the end of input: false. Anything else: asked again. Nobody to ask: an error. */
export async function confirm(session: Session, question: string): Promise<boolean> {
  const { stdin, stdout, signal } = session.world
  if (!stdin.isTTY) throw new CliError('cannot ask for confirmation: standard input is not a terminal', { hint: 'use --yes' })
  const lines = createInterface({ input: stdin, signal, terminal: false })
  try {
    stdout.write(question)
    for await (const line of lines) {
      const answer = line.trim().toLowerCase()
      if (answer === 'y' || answer === 'yes') return true
      if (answer === '' || answer === 'n' || answer === 'no') return false
      stdout.write(question)
    }
    return false
  } finally {
    lines.close()
  }
}

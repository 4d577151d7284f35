/** From words to an exit code. What a command does not need is not loaded: see program.ts. */
import { CommanderError } from 'commander'
import type { App } from './command.js'
import { type CliError, EXIT, usageError } from './exit-codes.js'
import { buildProgram } from './program.js'
import type { World } from './session.js'

/** commander's words, on one line. */
function misuse({ message }: CommanderError): CliError {
  return usageError(
    message
      .replace(/^error: /, '')
      .replace(/\n\(Did you mean (.+)\?\)$/s, ', did you mean $1?')
      .replace(/\s*\n\s*/g, ' '),
  )
}

const saysJson = (argv: readonly string[]): boolean => /(^|\s)--(output|format)[= ]json(\s|$)/.test(argv.join(' '))

/** Runs one command line. Never throws. */
export async function runCli(world: World, argv: readonly string[]): Promise<number> {
  const app: App = { world, exitCode: EXIT.ok, session: undefined, tree: (words) => buildProgram(app, words, world.version) }
  try {
    await (await app.tree(argv)).parseAsync([...argv], { from: 'user' })
    return app.exitCode
  } catch (thrown) {
    if (thrown instanceof CommanderError && thrown.exitCode === 0) return EXIT.ok
    const error = thrown instanceof CommanderError ? misuse(thrown) : thrown
    const { errorJson, errorText, exitCodeOf } = await import('./render/error.js')
    const { styleFor } = await import('./render/style.js')
    const isJson = app.session === undefined ? saysJson(argv) : app.session.format === 'json'
    world.stderr.write(isJson ? errorJson(error) : errorText(error, app.session?.errorStyle ?? styleFor(world.stderr, 'auto', world.env)))
    return exitCodeOf(error)
  }
}

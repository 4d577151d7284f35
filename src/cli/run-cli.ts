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

/** The value of a global flag, which is needed before the command that it is given to is known. */
function valueOf(argv: readonly string[], flag: string): string | undefined {
  const words = argv.slice(0, argv.includes('--') ? argv.indexOf('--') : undefined)
  const at = words.findIndex((word) => word === flag || word.startsWith(`${flag}=`))
  return at === -1 ? undefined : words[at] === flag ? words[at + 1] : words[at]!.slice(flag.length + 1)
}

/** What a command line can be about. `dump process …` is about processes: the plugins of other runtimes are not even looked for. */
async function pluginsFor(world: World, argv: readonly string[]): ReturnType<App['plugins']> {
  const { env, caller } = world
  const meant = await world.builtins(argv.slice(1, 2))
  if (meant.length > 0) return meant
  const sources = { configJson: valueOf(argv, '--config'), configDir: valueOf(argv, '--config-dir'), env, uid: caller.uid }
  // A configuration that cannot be read is for the command to complain of.
  const externals = await world.loadConfig(sources).then(
    (config) => world.externals(config),
    () => [],
  )
  const builtins = await world.builtins()
  return [...builtins, ...externals.filter(({ name }) => !builtins.some((one) => one.name === name))]
}

/** Runs one command line. Never throws. */
export async function runCli(world: World, argv: readonly string[]): Promise<number> {
  let plugins: ReturnType<App['plugins']> | undefined
  const app: App = {
    world,
    exitCode: EXIT.ok,
    session: undefined,
    plugins: () => (plugins ??= pluginsFor(world, argv)),
    tree: (words) => buildProgram(words === undefined ? { ...app, plugins: () => world.builtins() } : app, words, world.version),
  }
  try {
    const broken = argv.find((word) => !world.isExact(word))
    if (broken !== undefined) throw usageError(`argument ${JSON.stringify(broken)} is not valid UTF-8`)
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

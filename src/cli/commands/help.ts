import type { CliCommand } from '../command.js'
import { usageError } from '../exit-codes.js'

/** The command that `words` name, below `root`. */
function findCommand(root: CliCommand, words: readonly string[]): CliCommand {
  return words.reduce<CliCommand>((at, word) => {
    const next = at.commands.find((command) => command.name() === word || command.aliases().includes(word))
    if (next === undefined) throw usageError(`unknown command '${word}' of ${at.path()}`)
    return next as CliCommand
  }, root)
}

export function help(command: CliCommand): void {
  command
    .argument('[COMMAND...]', 'words of the command')
    .example('cedana help dump process')
    .does(async (_session, _options, words) => {
      findCommand(await command.app.tree(words), words).outputHelp()
    })
}

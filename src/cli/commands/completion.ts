import type { CliCommand } from '../command.js'
import { SCRIPTS, SHELLS } from '../completion/scripts.js'
import { complete as completeWords } from '../completion/candidates.js'

export function completion(command: CliCommand): void {
  const install = {
    bash: 'cedana completion bash > /etc/bash_completion.d/cedana',
    zsh: 'cedana completion zsh > "${fpath[1]}/_cedana"',
    fish: 'cedana completion fish > ~/.config/fish/completions/cedana.fish',
  }
  for (const shell of SHELLS) {
    command
      .add(shell, `print the completion script for ${shell}`)
      .example(install[shell])
      .does(async (session) => void session.world.stdout.write(SCRIPTS[shell]))
  }
}

/** Asked by the completion scripts. Silent and quick, whatever happens. */
export function complete(command: CliCommand): void {
  command.argument('[WORD...]', 'words after cedana; the last is being typed').does(async (session, _options, line) => {
    // What follows `help` is a command like any other.
    const words = line[0] === 'help' && line.length > 1 ? line.slice(1) : line
    // The last word may not be whole: `checkpoint` is also the beginning of `checkpoints`.
    const root = await command.app.tree(words.slice(0, -1))
    const { candidates, files } = await completeWords(root, words, (question) => session.ask(question))
    for (const { text, description } of candidates) session.print(`${text}\t${description}`)
    session.print(files ? ':files' : ':none')
  })
}

import type { Engine } from '../../daemon/api/engine.js'
import type { CliCommand } from '../command.js'
import { outputFlags } from '../shared-flags.js'
import { targetCommands } from '../targets.js'

const define =
  (verb: 'freeze' | 'unfreeze', past: string) =>
  async (command: CliCommand): Promise<void> => {
    outputFlags(command)
    await targetCommands(command, verb, (request) => async (session) => {
      const result = await session.ask((engine: Engine) => engine[verb](request, { signal: session.signal }))
      if (session.isStructured) return session.printDocument(result, session.format!)
      session.print(session.options.quiet === true ? String(result.pid) : `${past} ${result.type} PID ${result.pid}`)
    })
  }

export const freeze = define('freeze', 'Froze')
export const unfreeze = define('unfreeze', 'Unfroze')

import { resolve } from 'node:path'
import type { CliCommand } from '../command.js'
import { outputFlags } from '../shared-flags.js'

export function pluginManifest(command: CliCommand): void {
  outputFlags(command.argument('[DIR]', 'root of the package of a plugin, built (default: the current directory)'))
    .option('--check', 'write nothing, and fail when what is written is not what the code says')
    .note('Runs the code of the plugin, and writes cedana-plugin.json beside its package.json. For authors: part of the build of a plugin.')
    .example('cedana plugin manifest', 'cedana plugin manifest --check ./my-runtime')
    .does<{ readonly check?: boolean }>(async (session, { check = false }, [directory = '.']) => {
      const path = resolve(session.world.cwd, directory)
      const { name, verbs } = await session.world.describePlugin(await session.loadConfig(), path, { check })
      const outcome = check ? 'checked' : 'written'
      if (session.isStructured) return session.printDocument({ name, outcome }, session.format!)
      session.print(session.options.quiet === true ? name : `Plugin ${name} has ${Object.keys(verbs).join(', ')}`)
    })
}

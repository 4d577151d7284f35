import { resolve } from 'node:path'
import { refuseKind } from '../../plugins/description.js'
import type { CliCommand } from '../command.js'

export function pluginCreate(command: CliCommand): void {
  command
    .argument('<KIND>', 'runtime')
    .argument('<NAME>', 'name of the plugin: a-z, 0-9 and -')
    .option('--dir <DIR>', 'directory to make (default: NAME in the current one)')
    .note('The package is in TypeScript, with the conformance suite as its tests; docs/plugins.md of cedana is about what comes then.')
    .example('cedana plugin create runtime my-runtime')
    .does<{ readonly dir?: string }>(async (session, { dir }, [kind = '', name = '']) => {
      refuseKind(kind)
      const directory = resolve(session.world.cwd, dir ?? name)
      await (await session.world.pluginAuthor()).createPackage(name, directory)
      session.print(`Created ${directory}\n\n  cd ${directory}\n  npm install\n  npm test\n  cedana plugin install .`)
    })
}

export function pluginLink(command: CliCommand): void {
  command
    .argument('[DIR]', 'root of the package of a plugin (default: the current directory)')
    .note('Part of what npm install does in a package made by plugin create: there is one cedana/plugin, that of the installed cedana.')
    .example('cedana plugin link')
    .does(async (session, _options, [directory = '.']) => {
      await (await session.world.pluginAuthor()).linkDoor(resolve(session.world.cwd, directory))
    })
}

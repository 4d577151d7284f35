import type { CliCommand } from '../command.js'
import { features } from './features.js'
import { pluginCreate, pluginLink } from './plugin-create.js'
import { pluginInstall, pluginReload, pluginRemove } from './plugin-install.js'
import { pluginList } from './plugin-list.js'
import { pluginManifest } from './plugin-manifest.js'

export function plugin(command: CliCommand): void {
  const list = command.add('list', 'list plugins')
  list.alias('ls')
  pluginList(list)
  features(command.add('features', 'show what is supported for what'))
  pluginInstall(command.add('install', 'install plugins, or newer versions of them'))
  pluginRemove(command.add('remove', 'remove plugins').alias('rm'))
  pluginReload(command.add('reload', 'have the daemon look for plugins again'))
  pluginCreate(command.add('create', 'make the package of a new plugin'))
  pluginLink(command.add('link', 'have the source of a plugin import cedana/plugin from here'))
  pluginManifest(command.add('manifest', 'write down what a plugin says of itself'))
}

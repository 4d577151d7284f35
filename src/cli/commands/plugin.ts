import type { CliCommand } from '../command.js'
import { features } from './features.js'
import { pluginList } from './plugin-list.js'

export function plugin(command: CliCommand): void {
  const list = command.add('list', 'list plugins')
  list.alias('ls')
  pluginList(list)
  features(command.add('features', 'show what is supported for what'))
}

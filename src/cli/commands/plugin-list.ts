import type { PluginView } from '../../daemon/api/engine.js'
import type { CliCommand } from '../command.js'
import { knownPlugins } from '../known-plugins.js'
import { printListing, type Listing } from '../render/listing.js'
import type { Colour } from '../render/style.js'
import { formatSize } from '../render/units.js'
import { listFlags } from '../shared-flags.js'

const status = ({ origin, problem }: PluginView): string => (problem === '' || origin === 'available' ? origin : 'broken')
const COLOURS: Readonly<Record<string, Colour>> = {
  installed: 'green',
  local: 'green',
  'built-in': 'green',
  available: 'blue',
  broken: 'red',
}

const pluginListing = (plugins: readonly PluginView[], hints: readonly string[]): Listing<PluginView> => ({
  items: plugins,
  columns: [
    { header: 'plugin', cell: (one) => ({ text: one.name }) },
    { header: 'size', align: 'right', cell: (one) => ({ text: formatSize(one.sizeBytes) }), order: (one) => one.sizeBytes },
    { header: 'status', cell: (one) => ({ text: status(one), colour: COLOURS[status(one)] ?? 'grey' }) },
    { header: 'installed version', cell: (one) => ({ text: one.version }) },
  ],
  wide: [
    { header: 'kind', cell: (one) => ({ text: one.kind, colour: 'cyan' }) },
    { header: 'directory', cell: (one) => ({ text: one.directory }) },
    { header: 'summary', cell: (one) => ({ text: one.summary }) },
  ],
  id: (one) => one.name,
  none: 'No plugins to show',
  hints,
})

export function pluginList(command: CliCommand): void {
  listFlags(command.argument('[NAME...]', 'only these plugins'))
    .example('cedana plugin list', 'cedana plugins -o wide', 'cedana plugins -q --filter status=broken')
    .does(async (session, _options, names) => {
      const all = await knownPlugins(session, { needs: false })
      const shown = all.filter(({ name }) => names.length === 0 || names.includes(name))
      const available = shown.filter(({ origin }) => origin === 'available').length
      const problems = shown.flatMap(({ name, origin, problem }) =>
        problem === '' || origin === 'available' ? [] : [session.style('red', `${name}: ${problem}`)],
      )
      const counts = `${shown.length - available - problems.length} installed, ${available} available`
      const broken = problems.length === 0 ? [] : [`${counts}, ${problems.length} broken`, ...problems]
      await printListing(session, pluginListing(shown, problems.length === 0 ? [counts] : broken))
    })
}

import type { PluginView } from '../../daemon/api/engine.js'
import { satisfies } from '../../plugins/contract/version.js'
import { readPackage } from '../../plugins/packages.js'
import type { CliCommand } from '../command.js'
import { knownPlugins } from '../known-plugins.js'
import { printListing, type Listing } from '../render/listing.js'
import type { Colour } from '../render/style.js'
import { formatAge, formatSize } from '../render/units.js'
import type { Session } from '../session.js'
import { listFlags } from '../shared-flags.js'

interface Listed extends PluginView {
  /** Of the newest that can be had; empty: none is known. */
  readonly availableVersion: string
  /** Milliseconds since 1970; 0: not known. */
  readonly publishedAt: number
}

function status({ origin, problem, version, availableVersion }: Listed): string {
  if (problem !== '' && origin !== 'available') return 'broken'
  return origin === 'installed' && availableVersion !== '' && satisfies(availableVersion, `>${version}`) ? 'outdated' : origin
}
const COLOURS: Readonly<Record<string, Colour>> = {
  installed: 'green',
  local: 'green',
  'built-in': 'green',
  available: 'blue',
  outdated: 'yellow',
  broken: 'red',
}

const pluginListing = (plugins: readonly Listed[], hints: readonly string[]): Listing<Listed> => ({
  items: plugins,
  columns: [
    { header: 'plugin', cell: (one) => ({ text: one.name }) },
    { header: 'size', align: 'right', cell: (one) => ({ text: formatSize(one.sizeBytes) }), order: (one) => one.sizeBytes },
    { header: 'status', cell: (one) => ({ text: status(one), colour: COLOURS[status(one)] ?? 'grey' }) },
    { header: 'installed version', cell: (one) => ({ text: one.version || '-' }) },
    { header: 'available version', cell: (one) => ({ text: one.availableVersion || '-' }) },
    {
      header: 'published',
      align: 'right',
      cell: (one) => ({ text: formatAge(one.publishedAt, Date.now()) || '-' }),
      order: (one) => one.publishedAt,
    },
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

/** The npm package that an installed plugin is, of whichever name. */
function packageOf({ origin, directory }: PluginView): string | undefined {
  try {
    return origin === 'installed' ? readPackage(directory).packageName : undefined
  } catch {
    return undefined
  }
}

const bare = (spec: string): string => spec.replace(/(?<=.)@.*$/, '')

const absent = { kind: 'runtime', origin: 'available', version: '', summary: '', directory: '', problem: '' } as const

/** What is here, and what the registry has of it and of names that are not. */
async function withOffers(
  session: Session,
  { here, missing, offline }: { readonly here: readonly PluginView[]; readonly missing: readonly string[]; readonly offline: boolean },
): Promise<readonly Listed[]> {
  const isNamesOnly = session.options.quiet === true || session.format === 'name'
  const packages = new Map(here.map((one) => [one.name, packageOf(one)]))
  const specs = [...packages.values(), ...missing].filter((spec) => spec !== undefined)
  const asked = isNamesOnly || offline ? [] : specs
  const { found, unreachable, unfit } =
    asked.length === 0 ? { found: new Map<string, never>(), unreachable: undefined, unfit: [] } : await session.world.askRegistry(asked)
  const warn = (text: string): void => session.note(session.errorStyle('yellow', text))
  if (unreachable !== undefined) warn(`Using local list. Failed to ask the npm registry: ${unreachable}`)
  if (unfit.length > 0) warn(`No version for this cedana: ${unfit.join(', ')}`)
  const listed = here.map((one): Listed => {
    const offer = found.get(packages.get(one.name) ?? '')
    return {
      ...one,
      availableVersion: one.origin === 'local' && one.kind !== 'program' ? 'local' : (offer?.version ?? ''),
      publishedAt: offer?.publishedAt ?? 0,
    }
  })
  const others = missing.flatMap((spec): Listed[] => {
    const offer = found.get(spec)
    if (offer === undefined) return []
    const { version: availableVersion, publishedAt, sizeBytes } = offer
    return [{ ...absent, name: bare(spec), verbs: {}, features: {}, needs: [], availableVersion, publishedAt, sizeBytes }]
  })
  return [...listed, ...others]
}

export function pluginList(command: CliCommand): void {
  listFlags(command.argument('[NAME[@VERSION]...]', 'only these plugins, or npm packages'))
    .option('--offline', 'do not look for newer versions')
    .note('Newer versions are looked for in the registry that npm is configured for; one that does not answer is not waited for.')
    .example('cedana plugin list', 'cedana plugins -o wide', 'cedana plugins -q --filter status=broken')
    .does<{ readonly offline?: boolean }>(async (session, { offline = false }, names) => {
      const all = await knownPlugins(session, { needs: false })
      const here = all.filter(({ name }) => names.length === 0 || names.some((spec) => bare(spec) === name))
      const missing = names.filter((spec) => !here.some(({ name }) => name === bare(spec)))
      const shown = await withOffers(session, { here, missing, offline })
      const available = shown.filter(({ origin }) => origin === 'available').length
      const problems = shown.flatMap(({ name, origin, problem }) =>
        problem === '' || origin === 'available' ? [] : [session.style('red', `${name}: ${problem}`)],
      )
      const counts = `${shown.length - available - problems.length} installed, ${available} available`
      const broken = problems.length === 0 ? [] : [`${counts}, ${problems.length} broken`, ...problems]
      await printListing(session, pluginListing(shown, problems.length === 0 ? [counts] : broken))
    })
}

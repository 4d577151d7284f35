import type { PluginView } from '../../daemon/api/engine.js'
import { featureMatrix, type MatrixRow, MARKS, type Mark } from '../../plugins/matrix.js'
import type { CliCommand } from '../command.js'
import { CliError } from '../exit-codes.js'
import { knownPlugins } from '../known-plugins.js'
import { table, type Cell } from '../render/table.js'
import type { Colour } from '../render/style.js'
import type { Session } from '../session.js'
import { outputFlags } from '../shared-flags.js'

const COLOURS: Readonly<Record<Mark, Colour>> = { stable: 'green', experimental: 'yellow', none: 'grey', missing: 'grey', broken: 'red' }

const legend = (marks: readonly Mark[]): string => marks.map((mark) => `${MARKS[mark].sign} = ${MARKS[mark].meaning}`).join(', ')

/** A mark in the middle below its name. */
function centred(mark: Mark, width: number): Cell {
  return { text: MARKS[mark].sign.padStart(Math.floor((width + 1) / 2)), colour: COLOURS[mark] }
}

function matrixTable(session: Session, names: readonly string[], groups: readonly (readonly MatrixRow[])[]): string {
  const rows = groups.flatMap((group, index): Cell[][] => [
    ...(index > 0 ? [[]] : []),
    ...group.map(({ feature, marks }) => [{ text: feature }, ...names.map((name) => centred(marks[name] ?? 'missing', name.length))]),
  ])
  const columns = [{ header: 'feature', align: 'right' as const }, ...names.map((header) => ({ header }))]
  return table(columns, rows, { style: session.style, headers: true })
}

function needsTable(session: Session, plugins: readonly PluginView[]): string {
  const rows = plugins.flatMap(({ name, needs }) =>
    needs.map((need): Cell[] => [
      { text: name },
      { text: need.name },
      { text: need.wanted },
      { text: need.found, colour: need.problem !== '' ? 'red' : need.found === 'missing' ? 'grey' : 'green' },
    ]),
  )
  return table(
    ['plugin', 'needs', 'version', 'found'].map((header) => ({ header })),
    rows,
    { style: session.style, headers: true },
  )
}

const problemsOf = (plugins: readonly PluginView[]): string[] =>
  plugins.flatMap(({ name, problem, needs }) =>
    [problem, ...needs.map((need) => need.problem)].filter(Boolean).map((text) => `${name}: ${text}`),
  )

export function features(command: CliCommand): void {
  outputFlags(command.argument('[NAME...]', 'only these plugins'))
    .option('--errors', 'also what is wrong, and then fail')
    .example('cedana features', 'cedana features runc', 'cedana plugin features --errors')
    .does<{ readonly errors?: boolean }>(async (session, { errors = false }, names) => {
      const all = await knownPlugins(session, { needs: true })
      const known = all.filter(({ kind }) => kind === 'runtime')
      const shown = known.filter(({ name }) => names.length === 0 || names.includes(name))
      const missing = names.filter((name) => !known.some((one) => one.name === name))
      if (shown.length === 0) return session.print('No plugins available')
      const columns = [
        ...shown.map(({ name, verbs, features: claimed, problem }) => ({
          ...{ name, verbs, features: claimed },
          ...(problem === '' ? {} : { state: 'broken' as const }),
        })),
        ...missing.map((name) => ({ name, verbs: {}, features: {}, state: 'missing' as const })),
      ]
      const groups = featureMatrix(columns)
      // What all runtimes share.
      const needing = [...shown, ...(names.length === 0 ? all.filter(({ kind }) => kind === 'gpu') : [])]
      const problems = problemsOf(needing)
      if (session.isStructured) {
        const needs = Object.fromEntries(needing.map((one) => [one.name, one.needs]))
        await session.printDocument({ features: groups.flat(), needs, problems }, session.format!)
      } else {
        const others = all.filter(({ kind }) => kind !== 'runtime').map(({ name }) => name)
        session.world.stdout.write(
          `${matrixTable(
            session,
            columns.map(({ name }) => name),
            groups,
          )}\n`,
        )
        session.print(session.style('grey', legend(['stable', 'experimental', 'none', 'missing', 'broken'])))
        if (others.length > 0) session.print(session.style('grey', `Not showing external plugins: ${others.join(', ')}`))
        session.world.stdout.write(`\n${needsTable(session, needing)}`)
      }
      if (!errors || problems.length === 0) return
      if (!session.isStructured) session.print(['', ...problems.map((text) => session.style('red', text))].join('\n'))
      throw new CliError(`Found ${problems.length} issue${problems.length === 1 ? '' : 's'}.`)
    })
}

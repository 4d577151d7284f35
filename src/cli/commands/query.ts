import type { Engine } from '../../daemon/api/engine.js'
import type { CliCommand } from '../command.js'
import { chosen } from '../render/listing.js'
import { table } from '../render/table.js'
import type { Session } from '../session.js'
import { listFlags } from '../shared-flags.js'
import { typeCommands } from '../targets.js'

type QueryResult = Awaited<ReturnType<Engine['query']>>

/** As in the reference: by status where there is one. */
function sorted({ columns, rows }: QueryResult): QueryResult['rows'] {
  const key = columns.find((column) => column.toUpperCase() === 'STATUS')
  if (key === undefined) return rows
  return [...rows].sort((a, b) => (a.cells[key] ?? '').localeCompare(b.cells[key] ?? ''))
}

/** `CONTAINER ID` → `container_id`. */
const keyOf = (column: string): string => column.toLowerCase().replace(/[^a-z0-9]+/g, '_')
const keyed = ({ cells }: QueryResult['rows'][number]): object =>
  Object.fromEntries(Object.entries(cells).map(([column, text]) => [keyOf(column), text]))

async function print(
  session: Session,
  result: QueryResult,
  { name, inspect }: { readonly name: string; readonly inspect: boolean },
): Promise<void> {
  const { stdout } = session.world
  const { quiet, headers = true, trunc = true } = session.options
  const named = result.columns.map((column) => ({
    header: column.toLowerCase(),
    alias: keyOf(column),
    cell: (row: QueryResult['rows'][number]) => ({ text: row.cells[column] ?? '' }),
  }))
  const rows = chosen({ items: sorted(result), columns: named }, session.options)
  const id = (row: QueryResult['rows'][number]): string => row.cells[result.columns[0] ?? ''] ?? ''
  if (session.isStructured) return session.printDocument(inspect ? rows.map(({ state }) => state) : rows.map(keyed), session.format!)
  if (quiet === true || session.format === 'name') return rows.forEach((row) => session.print(id(row)))

  const cells = rows.map((row) => result.columns.map((column) => ({ text: row.cells[column] ?? '' })))
  const width = trunc && stdout.isTTY ? stdout.columns : undefined
  const columns = result.columns.map((header) => ({ header }))
  if (rows.length === 0) session.print('No results found')
  else stdout.write(table(columns, cells, { style: session.style, headers, width }))
  if (inspect && rows[0] !== undefined) {
    session.print('')
    await session.printDocument(rows[0].state, 'yaml')
  }
  if (result.messages.length > 0) session.print(['', ...result.messages.map((message) => session.style('grey', message))].join('\n'))
  if (!inspect && headers) session.print(`\nUse \`query ${name} <ID> --inspect\` for details on a specific result`)
}

export async function query(command: CliCommand): Promise<void> {
  listFlags(command, 'by status').option('-i, --inspect', 'also everything about the first result')
  for (const { command: sub, manifest, read, sample } of await typeCommands(
    command,
    'query',
    ['query'],
    (name) => `show what there is of type ${name}`,
  )) {
    sub.example(`cedana query ${manifest.name} ${sample}`, `cedana query ${manifest.name} --inspect ${sample}`)
    sub.does<{ readonly inspect?: boolean }>(async (session, flags, args) => {
      const request = { type: manifest.name, options: read.query!(args, flags) }
      const result = await session.ask((engine) => engine.query(request, { signal: session.signal }))
      await print(session, result, { name: manifest.name, inspect: flags.inspect ?? false })
    })
  }
}

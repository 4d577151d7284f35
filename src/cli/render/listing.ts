/** A list of things: a table for people, ids or one document for programs. */
import { CliError } from '../exit-codes.js'
import type { OutputOptions, Session } from '../session.js'
import { table, type Cell, type Column } from './table.js'

interface ListColumn<T> extends Column {
  readonly cell: (item: T) => Cell
  /** What --sort compares, where the text is no number. */
  readonly order?: (item: T) => number
  /** What --filter finds it by as well. */
  readonly alias?: string
  readonly matches?: (item: T, value: string) => boolean
}

export interface Listing<T> {
  readonly items: readonly T[]
  readonly columns: readonly ListColumn<T>[]
  /** Only with --output wide. */
  readonly wide?: readonly ListColumn<T>[]
  readonly id: (item: T) => string
  /** Said instead of an empty table. */
  readonly none: string
  /** After the table and a blank line. */
  readonly hints: readonly string[]
}

type Chooseable<T> = Pick<Listing<T>, 'items' | 'columns' | 'wide'>

/** What --filter leaves, as --sort says: by any column, shown or not. */
export function chosen<T>({ items, columns, wide = [] }: Chooseable<T>, { filter = [], sort }: OutputOptions): readonly T[] {
  const all = [...columns, ...wide]
  const named = (name: string): ListColumn<T> => {
    const column = all.find(({ header, alias }) => [header, alias].includes(name.toLowerCase()))
    if (column === undefined) throw new CliError(`no column ${name}: choose among ${all.map(({ header }) => header).join(', ')}`)
    return column
  }
  const tests = filter.map((text) => {
    const [, name = '', value = ''] = /^([^=]*)=(.*)$/s.exec(text) ?? []
    if (name === '') throw new CliError(`--filter ${text} is not of the form COLUMN=VALUE`)
    const { cell, matches } = named(name)
    return (item: T): boolean => cell(item).text === value || matches?.(item, value) === true
  })
  const left = tests.length === 0 ? items : items.filter((item) => tests.every((test) => test(item)))
  if (sort === undefined) return left
  const { cell, order } = named(sort.replace(/^-/, ''))
  const compare = (a: T, b: T): number => (order ? order(a) - order(b) : cell(a).text.localeCompare(cell(b).text, 'en', { numeric: true }))
  return left.toSorted(sort.startsWith('-') ? (a, b) => compare(b, a) : compare)
}

export async function printListing<T>(session: Session, listing: Listing<T>): Promise<void> {
  const options: OutputOptions = session.options
  const { headers = true, trunc = true, quiet } = options
  const { format = 'table' } = session
  const { id } = listing
  const items = chosen(listing, options)
  if (format === 'json' || format === 'yaml') return session.printDocument(items, format)
  if (quiet === true || format === 'name') return items.forEach((item) => session.print(id(item)))
  if (items.length === 0) return session.print(listing.none)

  const columns = [...listing.columns, ...(format === 'wide' ? (listing.wide ?? []) : [])]
  const rows = items.map((item) => columns.map(({ cell }) => cell(item)))
  const { stdout } = session.world
  const width = trunc && stdout.isTTY ? stdout.columns : undefined
  stdout.write(table(columns, rows, { style: session.style, headers, width }))
  if (headers && listing.hints.length > 0) session.print(['', ...listing.hints].join('\n'))
}

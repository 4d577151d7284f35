/** A list of things: a table for people, ids or one document for programs. */
import type { OutputOptions, Session } from '../session.js'
import { table, type Cell, type Column } from './table.js'

export interface Listing<T> {
  readonly items: readonly T[]
  readonly columns: readonly (Column & { readonly cell: (item: T) => Cell })[]
  /** Only with --output wide. */
  readonly wide?: readonly (Column & { readonly cell: (item: T) => Cell })[]
  readonly id: (item: T) => string
  /** Said instead of an empty table. */
  readonly none: string
  /** After the table and a blank line. */
  readonly hints: readonly string[]
}

export async function printListing<T>(session: Session, listing: Listing<T>): Promise<void> {
  const { headers = true, trunc = true, quiet } = session.options as OutputOptions
  const { format = 'table' } = session
  const { items, id } = listing
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

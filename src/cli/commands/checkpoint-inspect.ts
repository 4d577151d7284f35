import type { CliCommand } from '../command.js'
import { table } from '../render/table.js'
import type { Session } from '../session.js'
import { outputFlags } from '../shared-flags.js'

/** What `--type` means in the contents. */
const SECTIONS = { ps: 'processes', fd: 'files', mem: 'memory', rss: 'memory', sk: 'sockets', gpu: 'gpu' } as const
type Section = keyof typeof SECTIONS

const isScalar = (value: unknown): value is string | number | boolean => ['string', 'number', 'boolean'].includes(typeof value)
const isRow = (value: unknown): value is Readonly<Record<string, unknown>> => typeof value === 'object' && value !== null && !Array.isArray(value)
const heading = (key: string): string => key.replace(/[A-Z]/g, (letter) => ` ${letter}`)

/** A list of facts as a table: a column for each name that has simple values; lists of simple values are joined. */
export function factTable(session: Pick<Session, 'style'>, facts: readonly unknown[]): string {
  const rows = facts.filter(isRow)
  const shown = (value: unknown): string => (isScalar(value) ? String(value) : Array.isArray(value) && value.every(isScalar) ? value.join(' ') : '')
  const keys = [...new Set(rows.flatMap((row) => Object.keys(row)))].filter((key) => rows.some((row) => shown(row[key]) !== ''))
  const columns = keys.map((key) => ({
    header: heading(key),
    align: rows.every((row) => row[key] === undefined || typeof row[key] === 'number') ? ('right' as const) : ('left' as const),
  }))
  const cells = rows.map((row) => keys.map((key) => ({ text: shown(row[key]) })))
  return table(columns, cells, { style: session.style, headers: true })
}

function printSections(session: Session, contents: Readonly<Record<string, unknown>>): void {
  const parts = Object.entries(contents).flatMap(([name, facts]) =>
    Array.isArray(facts) && facts.length > 0 ? [`${session.style('bold', name.toUpperCase())}\n${factTable(session, facts)}`] : [],
  )
  session.world.stdout.write(parts.length > 0 ? parts.join('\n') : 'Nothing to show\n')
}

export function checkpointInspect(command: CliCommand): void {
  outputFlags(command)
    .choice('-t, --type <SECTION>', 'only processes (ps), open files (fd), memory (mem, rss), sockets (sk) or GPU state (gpu)', Object.keys(SECTIONS))
    .example('cedana checkpoint inspect 4be1', 'cedana checkpoint inspect --type fd /tmp/dump-process-1.tar.gz', 'cedana checkpoint inspect -o json 4be1')
    .does<{ readonly type?: Section }>(async (session, { type }, [id = '']) => {
      const result = await session.ask((engine) => engine.inspectCheckpoint(id, { signal: session.signal }))
      const all = result.contents as Readonly<Record<string, unknown>>
      const contents = type === undefined ? all : { [SECTIONS[type]]: all[SECTIONS[type]] ?? [] }
      if (session.isStructured) return session.printDocument(type === undefined ? result : contents, session.format!)
      if (session.options.quiet === true || session.format === 'name') return session.print(result.checkpoint.id)
      if (type === undefined) session.print(`${result.checkpoint.path}\n`)
      printSections(session, contents)
    })
}

/** What is in a checkpoint, as tables: its processes and, of each, open files, memory and sockets. */
import type { Style } from './style.js'
import { table } from './table.js'
import { formatSize } from './units.js'

type Facts = Readonly<Record<string, unknown>>

const isFacts = (value: unknown): value is Facts => typeof value === 'object' && value !== null && !Array.isArray(value)
const listOf = (value: unknown): readonly Facts[] => (Array.isArray(value) ? value.filter(isFacts) : [])

/** Of every process, what it has of one kind; each with the PID. */
const each =
  (key: string) =>
  (contents: Facts): readonly Facts[] =>
    listOf(contents.processes).flatMap((one) =>
      (isFacts(one[key]) ? [one[key]] : listOf(one[key])).map((fact) => ({ pid: one.pid, name: one.name, ...fact })),
    )

/** As ps shows one whose command line is not known. */
const withCommand = (one: Facts): Facts =>
  Array.isArray(one.args) && one.args.length > 0 ? one : { ...one, args: [`[${String(one.name)}]`] }

interface Section {
  readonly columns: readonly string[]
  readonly rows: (contents: Facts) => readonly Facts[]
}
export const SECTIONS = {
  container: {
    columns: ['name', 'id', 'image', 'pod', 'engine', 'runtime', 'createdTime', 'rootfsDiffBytes'],
    rows: ({ container }: Facts) => (isFacts(container) ? [container] : []),
  },
  processes: {
    columns: ['pid', 'parentPid', 'session', 'state', 'threads', 'args'],
    rows: (contents: Facts) => listOf(contents.processes).map(withCommand),
  },
  files: { columns: ['pid', 'fd', 'kind', 'path'], rows: each('files') },
  memory: {
    columns: ['pid', 'name', 'mappedBytes', 'anonymousBytes', 'sharedBytes', 'fileBytes', 'heapBytes', 'stackBytes', 'storedBytes'],
    rows: each('memory'),
  },
  sockets: { columns: ['pid', 'fd', 'family', 'kind', 'state', 'local', 'remote'], rows: each('sockets') },
  gpu: { columns: ['pid', 'device', 'storedBytes'], rows: each('gpu') },
} as const satisfies Record<string, Section>
export type SectionName = keyof typeof SECTIONS

function text(column: string, value: unknown): string {
  if (column === 'threads' && Array.isArray(value)) return String(value.length)
  if (column.endsWith('Bytes')) return typeof value === 'number' ? formatSize(value) : ''
  if (Array.isArray(value)) return value.join(' ')
  return typeof value === 'string' || typeof value === 'number' ? String(value) : ''
}

const heading = (column: string): string => column.replace(/Bytes$/, '').replace(/[A-Z]/g, (letter) => ` ${letter}`)

const isNumeric = (column: string): boolean => column.endsWith('Bytes') || ['pid', 'parentPid', 'session', 'threads', 'fd'].includes(column)

/** Empty when there is nothing of this kind. */
export function sectionTable(name: SectionName, contents: object, style: Style): string {
  const { columns, rows } = SECTIONS[name]
  const facts = rows(contents as Facts)
  if (facts.length === 0) return ''
  const cells = facts.map((fact) => columns.map((column) => ({ text: text(column, fact[column]) })))
  return table(
    columns.map((column) => ({ header: heading(column), align: isNumeric(column) ? 'right' : 'left' })),
    cells,
    { style, headers: true },
  )
}

/** The one table: no borders, two spaces between columns, upper-case bold headers, colour applied outside the width. */
import type { Colour, Style } from './style.js'

export interface Cell {
  readonly text: string
  readonly colour?: Colour | undefined
}
export interface Column {
  readonly header: string
  readonly align?: 'left' | 'right'
}
interface TableOptions {
  readonly style: Style
  readonly headers: boolean
  /** Cuts lines to this many characters; undefined: never (not a terminal, --no-trunc). */
  readonly width?: number | undefined
}

const GAP = '  '

/** Names come from anywhere: no control character of theirs reaches the terminal. */
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/g

function fit(text: string, room: number): string {
  if (text.length <= room) return text
  return room < 1 ? '' : `${text.slice(0, room - 1)}…`
}

/** Plain loops and few objects: most of the time of `cedana ps` is this code, run for the first time in its process. */
export function table(columns: readonly Column[], rows: readonly (readonly Cell[])[], { style, headers, width }: TableOptions): string {
  const heading: Cell[] = columns.map(({ header }) => ({ text: header.toUpperCase(), colour: 'bold' }))
  const lines = headers ? [heading, ...rows] : rows
  const texts = lines.map((cells) => columns.map((_, index) => (cells[index]?.text ?? '').replace(CONTROL, '?')))
  const widths = columns.map((_, index) => texts.reduce((widest, line) => Math.max(widest, line[index]!.length), 0))
  const last = columns.length - 1
  const before = widths.slice(0, last).reduce((sum, one) => sum + one + GAP.length, 0)

  const renderLine = (line: readonly string[], cells: readonly Cell[]): string => {
    let rendered = ''
    for (let index = 0; index <= last; index++) {
      const text = index === last && width !== undefined ? fit(line[index]!, width - before) : line[index]!
      const shown = style(cells[index]?.colour, text)
      const padding = ' '.repeat(Math.max(0, widths[index]! - text.length))
      if (columns[index]!.align === 'right') rendered += padding + shown
      else rendered += index === last ? shown : shown + padding
      if (index !== last) rendered += GAP
    }
    return rendered.trimEnd()
  }
  return texts.map((line, index) => `${renderLine(line, lines[index]!)}\n`).join('')
}

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
export interface TableOptions {
  readonly style: Style
  readonly headers: boolean
  /** Cuts lines to this many characters; undefined: never (not a terminal, --no-trunc). */
  readonly width?: number | undefined
}

const GAP = '  '

/** Names come from anywhere: no control character of theirs reaches the terminal. */
const printable = (text: string): string => text.replace(/[\u0000-\u001f\u007f-\u009f]/g, '?')

function fit(text: string, room: number): string {
  if (text.length <= room) return text
  return room < 1 ? '' : `${text.slice(0, room - 1)}…`
}

export function table(columns: readonly Column[], rows: readonly (readonly Cell[])[], { style, headers, width }: TableOptions): string {
  const heading: Cell[] = columns.map(({ header }) => ({ text: header.toUpperCase(), colour: 'bold' }))
  const lines = [...(headers ? [heading] : []), ...rows].map((cells) =>
    cells.map(({ text, colour }) => ({ text: printable(text), colour })),
  )
  const widths = columns.map((_, index) => Math.max(0, ...lines.map((cells) => cells[index]?.text.length ?? 0)))

  const renderLine = (cells: readonly Cell[]): string => {
    let used = 0
    let line = ''
    columns.forEach(({ align }, index) => {
      const isLast = index === columns.length - 1
      const { text, colour } = cells[index] ?? { text: '' }
      const shown = isLast && width !== undefined ? fit(text, width - used) : text
      const padding = ' '.repeat(Math.max(0, widths[index]! - shown.length))
      line += align === 'right' ? padding + style(colour, shown) : style(colour, shown) + (isLast ? '' : padding)
      if (!isLast) line += GAP
      used += widths[index]! + GAP.length
    })
    return line.trimEnd()
  }
  return lines.map((cells) => `${renderLine(cells)}\n`).join('')
}

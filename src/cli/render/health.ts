/** The health table of `check` and its verdict. */
import type { CheckSection } from '../../daemon/api/engine.js'
import { CliError } from '../exit-codes.js'
import type { Colour, Style } from './style.js'
import { table, type Cell } from './table.js'
import { wrap } from './wrap.js'

const WRAP = 60

function componentRows({ name, data, errors, warnings }: CheckSection['components'][number]): Cell[][] {
  const [mark, colour]: [string, Colour] = errors.length > 0 ? ['✖', 'red'] : warnings.length > 0 ? ['•', 'yellow'] : ['✔', 'green']
  const messages = [
    ...errors.map((text) => ({ text, mark: ['✖', 'red'] as const })),
    ...warnings.map((text) => ({ text, mark: ['•', 'yellow'] as const })),
  ]
  if (messages.length === 0) return [[{ text: name }, { text: data, colour }, { text: mark, colour }, { text: '' }]]
  return messages.flatMap((message, index) =>
    wrap(message.text, WRAP).map((line, lineIndex): Cell[] => [
      { text: index === 0 && lineIndex === 0 ? name : '' },
      { text: index === 0 && lineIndex === 0 ? data : '', colour },
      lineIndex === 0 ? { text: message.mark[0], colour: message.mark[1] } : { text: '' },
      { text: line, colour: 'grey' },
    ]),
  )
}

export function healthTable(sections: readonly CheckSection[], style: Style): string {
  const rows = sections.flatMap(({ name, components }, index): Cell[][] => [
    ...(index > 0 ? [[]] : []),
    [{ text: name.toUpperCase(), colour: 'bold' }],
    ...components.flatMap(componentRows),
  ])
  return table([{ header: '' }, { header: '' }, { header: '' }, { header: '' }], rows, { style, headers: false })
}

/** The last line; throws it as an error when something is broken. */
export function healthVerdict(sections: readonly CheckSection[]): string {
  const components = sections.flatMap((section) => section.components)
  const errors = components.reduce((count, one) => count + one.errors.length, 0)
  const warnings = components.reduce((count, one) => count + one.warnings.length, 0)
  if (errors > 0) throw new CliError(`Failed with ${errors} error(s)${warnings > 0 ? ` and ${warnings} warning(s)` : ''}.`)
  return warnings > 0 ? `Looks good, with ${warnings} warning(s).` : 'All good.'
}

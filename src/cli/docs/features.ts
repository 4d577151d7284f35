/** The feature matrix of the plugins that are part of the program, as Markdown. */
import type { DescribedRuntime } from '../../plugins/description.js'
import { featureMatrix, MARKS } from '../../plugins/matrix.js'

const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |\n`

const needText = (need: DescribedRuntime['requires'][number]): string =>
  Object.entries(need)
    .filter(([key]) => key !== 'version')
    .map(([key, value]) =>
      (key === 'binary' ? [value, 'version' in need ? need.version : ''] : value === true ? [key] : [key, value]).join(' ').trim(),
    )
    .join(', ')

export function featuresPage(plugins: readonly DescribedRuntime[]): string {
  const names = plugins.map(({ name }) => name)
  const rows = featureMatrix(plugins)
    .flat()
    .map(({ feature, marks }) => line([feature, ...names.map((name) => MARKS[marks[name] ?? 'missing'].sign)]))
  const needs = plugins.map(({ name, summary, requires }) => line([name, summary, requires.map(needText).join(', ')]))
  const legend = (['stable', 'experimental', 'none'] as const).map((mark) => `${MARKS[mark].sign} ${MARKS[mark].meaning}`).join(', ')
  return [
    '# Features\n\nMade by `cedana docs-gen` from what the plugins claim, which the conformance suite (`test/contract`) holds them to.\n',
    'For what is on a machine, with versions found: `cedana features`.\n\n',
    line(['Feature', ...names]),
    line(['---', ...names.map(() => ':-:')]),
    ...rows,
    `\n${legend}\n\n## Needs\n\n`,
    line(['Plugin', '', 'Needs']),
    line(['---', '---', '---']),
    ...needs,
  ].join('')
}

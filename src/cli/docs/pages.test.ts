import { expect, test } from 'vitest'
import { describeConfig } from '../../daemon/config.js'
import { loadBuiltins } from '../../plugins/index.js'
import type { App } from '../command.js'
import { buildProgram } from '../program.js'
import { manPages, markdownPages } from './pages.js'

const app: App = {
  world: { builtins: loadBuiltins } as Partial<App['world']> as App['world'],
  plugins: loadBuiltins,
  exitCode: 0,
  session: undefined,
  tree: () => buildProgram(app, undefined, '0'),
}
const tree = await app.tree()

test('a page for every visible command, with its sub-commands', () => {
  const pages = markdownPages(tree, describeConfig())
  expect(pages.map(({ name }) => name)).toEqual(expect.arrayContaining(['README.md', 'configuration.md', 'dump.md', 'ps.md']))
  expect(pages.some(({ name }) => name.startsWith('_') || name === 'docs-gen.md')).toBe(false)
  const dump = pages.find(({ name }) => name === 'dump.md')!.text
  expect(dump).toContain('## cedana dump process')
  expect(dump).toContain('`cedana dump process [options] <PID>`')
  expect(dump).toContain('And the flags of `cedana dump`.')
  expect(dump).not.toContain('--config-dir')
})

test('man pages: of every command, of the configuration; what roff would take is escaped', () => {
  const pages = new Map(manPages(tree, describeConfig()).map(({ name, text }) => [name, text]))
  expect([...pages.keys()]).toEqual(expect.arrayContaining(['cedana.1', 'cedana-dump.1', 'cedana-checkpoint.1', 'cedana.json.5']))
  expect(pages.get('cedana.1')).toContain('.BR cedana\\-dump (1),\n')
  expect(pages.get('cedana-dump.1')).toContain('.SH NAME\ncedana\\-dump \\- make a checkpoint\n')
  expect(pages.get('cedana-dump.1')).toContain('\\-\\-criu\\-opts <JSON>')
  expect(pages.get('cedana-checkpoint.1')).toContain('.SS cedana checkpoint verify\n')
  expect(pages.get('cedana.json.5')).toContain('.B checkpoint.keep_last\n')
  expect(
    [...pages.values()]
      .join('\n')
      .split('\n')
      .every((line) => !line.startsWith("'")),
  ).toBe(true)
})

test('every command that does something shows how', () => {
  const silent: string[] = []
  const visit = (command: typeof tree): void => {
    if (command.commands.length === 0 && command.examples.length === 0) silent.push(command.path())
    command.visibleCommands().forEach(visit)
  }
  visit(tree)
  expect(silent).toEqual([])
})

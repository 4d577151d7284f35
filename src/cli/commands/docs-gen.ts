import type { CliCommand } from '../command.js'
import { absolute } from '../shared-flags.js'

export function docsGen(command: CliCommand): void {
  command
    .argument('<DIR>', 'root of the repository: docs and man are written below it')
    .example('cedana docs-gen .')
    .does(async (session, _options, [directory = '']) => {
      const { manPages, markdownPages } = await import('../docs/pages.js')
      const { featuresPage } = await import('../docs/features.js')
      const { mkdir, rm, writeFile } = await import('node:fs/promises')
      const root = absolute(session.world, directory)
      const tree = await command.app.tree()
      const keys = await session.world.describeConfig()
      for (const place of ['docs/cli', 'man']) {
        await rm(`${root}/${place}`, { recursive: true, force: true })
        await mkdir(`${root}/${place}`, { recursive: true })
      }
      for (const { name, text } of markdownPages(tree, keys)) await writeFile(`${root}/docs/cli/${name}`, text)
      await writeFile(`${root}/docs/features.md`, featuresPage(await session.world.builtins()))
      for (const { name, text } of manPages(tree, keys)) await writeFile(`${root}/man/${name}`, text)
    })
}

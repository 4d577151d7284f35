import type { CliCommand } from '../command.js'
import { checkpointArgument, checkpointOf, type LatestFlag } from '../latest.js'
import { SECTIONS, sectionTable, type SectionName } from '../render/contents.js'
import type { Session } from '../session.js'
import { outputFlags } from '../shared-flags.js'

const TYPES = {
  container: 'container',
  ps: 'processes',
  fd: 'files',
  mem: 'memory',
  rss: 'memory',
  sk: 'sockets',
  gpu: 'gpu',
} as const satisfies Record<string, SectionName>

function printSections(session: Session, contents: object): void {
  const parts = (Object.keys(SECTIONS) as SectionName[]).flatMap((name) => {
    const text = sectionTable(name, contents, session.style)
    return text === '' ? [] : [`${session.style('bold', name.toUpperCase())}\n${text}`]
  })
  session.world.stdout.write(parts.length > 0 ? parts.join('\n') : 'Nothing to show\n')
}

export function checkpointInspect(command: CliCommand): void {
  outputFlags(checkpointArgument(command))
    .choice(
      '-t, --type <SECTION>',
      'only the container, processes (ps), open files (fd), memory (mem, rss), sockets (sk) or GPU state (gpu)',
      Object.keys(TYPES),
    )
    .example(
      'cedana checkpoint inspect 4be1',
      'cedana checkpoint inspect --type fd /tmp/dump-process-1.tar.gz',
      'cedana checkpoint inspect -o json 4be1',
    )
    .does<{ readonly type?: keyof typeof TYPES } & LatestFlag>(async (session, { type, ...flags }, [name]) => {
      const id = await checkpointOf(session, name, flags)
      const { checkpoint, manifest, contents } = await session.ask((engine) => engine.inspectCheckpoint(id, { signal: session.signal }))
      const section = type === undefined ? undefined : TYPES[type]
      if (session.isStructured) {
        const chosen = section === undefined ? { checkpoint, manifest, contents } : SECTIONS[section].rows({ ...contents })
        return session.printDocument(chosen, session.format!)
      }
      if (session.options.quiet === true || session.format === 'name') return session.print(checkpoint.id)
      if (section !== undefined)
        return void session.world.stdout.write(sectionTable(section, contents, session.style) || 'Nothing to show\n')
      session.print(`${checkpoint.path}\n`)
      printSections(session, contents)
    })
}

import type { CliCommand } from '../command.js'
import { EXIT } from '../exit-codes.js'
import { healthTable, healthVerdict } from '../render/health.js'
import type { Session } from '../session.js'
import { outputFlags } from '../shared-flags.js'

interface CheckFlags {
  readonly full?: boolean
}

async function examine(session: Session, { full = false }: CheckFlags, local: boolean): Promise<number | void> {
  const sections = await session.ask((engine) => engine.check({ full }, { signal: session.signal }), { local })
  if (session.isStructured) {
    await session.printDocument(sections, session.format!)
    return sections.some(({ components }) => components.some(({ errors }) => errors.length > 0)) ? EXIT.error : EXIT.ok
  }
  if (session.options.quiet !== true) session.world.stdout.write(`${healthTable(sections, session.style)}\n`)
  session.print(healthVerdict(sections))
}

const checkFlags = (command: CliCommand): CliCommand => outputFlags(command).option('--full', 'also what takes longer, and every plugin')

export function check(command: CliCommand): void {
  checkFlags(command)
    .example('cedana check', 'cedana check --full -o json')
    .does<CheckFlags>((session, flags) => examine(session, flags, true))
}

export function daemonCheck(command: CliCommand): void {
  checkFlags(command)
    .example('cedana daemon check')
    .does<CheckFlags>((session, flags) => examine(session, flags, false))
}

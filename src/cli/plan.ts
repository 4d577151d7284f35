/** What --dry-run shows: the plan, and what would go wrong. */
import type { DumpResult } from '../daemon/api/engine.js'
import { EXIT } from './exit-codes.js'
import type { Session } from './session.js'

type Problem = DumpResult['problems'][number]

function problemText(session: Session, { severity, message, hint, pid }: Problem): string {
  const colour = severity === 'error' ? 'red' : 'yellow'
  const where = pid ? `pid ${pid}: ` : ''
  return `${session.style(colour, severity)}: ${where}${message}${hint === undefined || hint === '' ? '' : `\n  → ${hint}`}`
}

/** Exit code 1 when it would be refused. */
export async function printPlan(session: Session, { plan, problems }: Pick<DumpResult, 'plan' | 'problems'>): Promise<number> {
  const isRefused = problems.some(({ severity }) => severity === 'error')
  if (session.isStructured) await session.printDocument({ plan, problems }, session.format!)
  else {
    await session.printDocument(plan ?? {}, 'yaml')
    if (problems.length > 0) session.print(['', ...problems.map((problem) => problemText(session, problem))].join('\n'))
    session.print(isRefused ? '\nThis would fail.' : '\nNothing was changed.')
  }
  return isRefused ? EXIT.error : EXIT.ok
}

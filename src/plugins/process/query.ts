import type { z } from 'zod'
import { CedanaError, type ErrorCode } from '../contract/errors.js'
import type { Host } from '../contract/host.js'
import { type ProcessFacts, STATE_WORDS } from '../contract/job.js'
import { refuseNone } from '../contract/kit.js'
import type { QueryResult, QueryRow } from '../contract/runtime.js'
import type { QueryOptions } from './options.js'

function row(facts: ProcessFacts, state: unknown): QueryRow {
  const command = facts.args.length > 0 ? facts.args.join(' ') : `[${facts.name}]`
  const cells = {
    PID: `${facts.pid}`,
    STATUS: STATE_WORDS[facts.state] ?? '',
    UID: `${facts.uids[0]}`,
    GID: `${facts.gids[0]}`,
    COMMAND: command,
  }
  return { cells, state }
}

/** A row per PID (with `tree`, per process below it); PIDs that cannot be read become messages. */
export async function query(host: Host, options: z.output<typeof QueryOptions>): Promise<QueryResult> {
  const rows: QueryRow[] = []
  const failures: string[] = []
  const codes: ErrorCode[] = []
  for (const pid of options.pids) {
    try {
      const snapshot = await host.inspect(await host.identify(pid))
      const shown = options.tree ? snapshot.processes : snapshot.processes.slice(0, 1)
      rows.push(...shown.map((facts, index) => row(facts, index === 0 ? snapshot : facts)))
    } catch (thrown) {
      const { code, message } = CedanaError.from(thrown)
      codes.push(code)
      failures.push(`PID ${pid}: ${message}`)
    }
  }
  refuseNone(codes[0] ?? 'NO_SUCH_PROCESS', rows, failures)
  rows.sort((a, b) => (a.cells['STATUS'] ?? '').localeCompare(b.cells['STATUS'] ?? ''))
  const found = `Found ${rows.length} process${rows.length === 1 ? '' : 'es'}`
  return { columns: ['PID', 'STATUS', 'UID', 'GID', 'COMMAND'], rows, messages: [...(rows.length > 0 ? [found] : []), ...failures] }
}

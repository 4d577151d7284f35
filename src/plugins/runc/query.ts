import type { z } from 'zod'
import type { Host } from '../contract/host.js'
import { refuseNone, tell } from '../contract/kit.js'
import type { QueryResult } from '../contract/runtime.js'
import { runtimeCommand } from './command-line.js'
import type { QueryOptions } from './options.js'
import { identityOf } from './state.js'

interface Listed {
  readonly id: string
  readonly bundle: string
}

/** What the runtime lists. */
export async function query(host: Host, options: z.output<typeof QueryOptions>): Promise<QueryResult> {
  const identity = identityOf({ id: '-', root: options.root, runtime: options.runtime })
  const stdout = await tell(host, [...runtimeCommand(identity), 'list', '--format', 'json'], { name: `${identity.runtime} list` })
  const listed = (JSON.parse(stdout) as readonly Listed[] | null) ?? []
  const shown = options.id.length === 0 ? listed : listed.filter(({ id }) => options.id.includes(id))
  const absent = options.id
    .filter((id) => !listed.some((one) => one.id === id))
    .map((id) => `container ${id}: does not exist in ${identity.root}`)
  refuseNone('NO_SUCH_CONTAINER', shown, absent)
  const rows = shown.map((one) => ({ cells: { ID: one.id, BUNDLE: one.bundle, ROOT: identity.root }, state: one }))
  const found = `Found ${rows.length} container${rows.length === 1 ? '' : 's'}`
  return {
    columns: ['ID', 'BUNDLE', 'ROOT'],
    rows,
    messages: [...(rows.length > 0 ? [found] : []), ...absent],
  }
}

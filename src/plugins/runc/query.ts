import type { z } from 'zod'
import { CedanaError } from '../contract/errors.js'
import type { Host } from '../contract/host.js'
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
  const { code, stdout, stderr } = await host.exec([...runtimeCommand(identity), 'list', '--format', 'json'])
  if (code !== 0) throw new CedanaError('HOST_UNFIT', `${identity.runtime} list failed: ${stderr.trim()}`)
  const listed = (JSON.parse(stdout) as readonly Listed[] | null) ?? []
  const shown = options.id.length === 0 ? listed : listed.filter(({ id }) => options.id.includes(id))
  const absent = options.id.filter((id) => !listed.some((one) => one.id === id))
  const rows = shown.map((one) => ({ cells: { ID: one.id, BUNDLE: one.bundle, ROOT: identity.root }, state: one }))
  const found = `Found ${rows.length} container${rows.length === 1 ? '' : 's'}`
  return {
    columns: ['ID', 'BUNDLE', 'ROOT'],
    rows,
    messages: [...(rows.length > 0 ? [found] : []), ...absent.map((id) => `container ${id}: does not exist in ${identity.root}`)],
  }
}

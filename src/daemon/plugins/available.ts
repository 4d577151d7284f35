/** What the npm registry has of plugins, as npm is configured to ask it. Nobody waits for it for long, and nothing fails without it. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { CONTRACT_VERSION, satisfies } from '../../plugins/contract/version.js'
import { type NpmFailure, npmCode, NPM_SPEC } from './source.js'

const execute = promisify(execFile)
const ANSWER_MS = 3000
const NPM_MS = 8000

export interface Available {
  readonly version: string
  /** Milliseconds since 1970; 0: not known. */
  readonly publishedAt: number
  /** Unpacked; 0: not known. */
  readonly sizeBytes: number
}
export interface Offers {
  /** By what was asked for; what is not there, or is no plugin, is not in it. */
  readonly found: ReadonlyMap<string, Available>
  /** Why the registry has not been asked. */
  readonly unreachable: string | undefined
  /** Plugins whose newest version is made for another contract. */
  readonly unfit: readonly string[]
}

interface Viewed {
  readonly version: string
  readonly cedana?: { readonly contract?: string }
  readonly dist?: { readonly unpackedSize?: number }
  readonly time?: Readonly<Record<string, string>>
}

/** Of a range all versions are in the answer, the newest last. */
async function view(spec: string): Promise<Viewed | undefined> {
  const flags = ['--json', '--fetch-retries=0', `--fetch-timeout=${ANSWER_MS}`, '--no-update-notifier']
  const { stdout } = await execute('npm', ['view', spec, 'version', 'cedana', 'dist', 'time', ...flags], { cwd: '/', timeout: NPM_MS })
  return [JSON.parse(stdout || '[]') as Viewed | readonly Viewed[]].flat().at(-1)
}

/** `specs`: `name`, `name@version` of npm packages. */
export async function askRegistry(specs: readonly string[]): Promise<Offers> {
  const found = new Map<string, Available>()
  const unfit: string[] = []
  let unreachable: string | undefined
  const ask = async (spec: string): Promise<void> => {
    const viewed = await view(spec)
    const contract = viewed?.cedana?.contract
    if (viewed === undefined || contract === undefined) return
    const { version, dist, time } = viewed
    if (!satisfies(CONTRACT_VERSION, contract)) unfit.push(spec)
    else found.set(spec, { version, publishedAt: Date.parse(time?.[version] ?? '') || 0, sizeBytes: dist?.unpackedSize ?? 0 })
  }
  const known = new Set(specs.filter((spec) => NPM_SPEC.test(spec)))
  await Promise.all(
    [...known].map((spec) =>
      ask(spec).catch((thrown: unknown) => {
        const failed = thrown as NpmFailure
        const code = npmCode(failed)
        if (code === 'E404' || code === 'ETARGET') return
        unreachable = failed.code === 'ENOENT' ? 'npm is not installed' : code || `no answer within ${NPM_MS / 1000} s`
      }),
    ),
  )
  return { found, unreachable, unfit }
}

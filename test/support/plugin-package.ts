/** Packages of plugins, as an author's build leaves them: a runtime that does what `process` does, with what a test wants to be different. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { CONTRACT_VERSION } from '../../src/plugins/contract/version.js'

export interface PackageParts {
  /** Of the plugin; the package is `cedana-plugin-NAME`. */
  readonly name: string
  readonly version?: string
  /** Range of versions of the contract. */
  readonly contract?: string
  /** JavaScript, in place of the usual. */
  readonly dump?: string
  readonly resolve?: string
  readonly restore?: string
  readonly summary?: string
  /** Of verbs besides the usual, by name; claimed. */
  readonly more?: Readonly<Record<string, string>>
  /** Claimed besides the usual: that verb is not there. */
  readonly claims?: string
  /** First thing that its module does. */
  readonly first?: string
  /** Replaces members of package.json. */
  readonly manifest?: Readonly<Record<string, unknown>>
}

const code = ({ name, dump, resolve, restore, claims, first, summary, more = {} }: PackageParts): string => `
import { CedanaError, defineRuntime, NoOptions, z } from 'cedana/plugin'
import { verbs } from './verbs.js'
${first ?? ''}
const pid = z.coerce.number().int().positive().meta({ positional: true, description: 'process id' })
const note = z.string().default('').meta({ short: 'n', value: 'TEXT', description: 'said in the log' })

export const plugin = defineRuntime({
  name: '${name}',
  summary: '${summary ?? `processes, by ${name}`}',
  verbs: { run: 'stable', resolve: 'stable', dump: 'stable', restore: 'experimental'${[
    ...Object.keys(more),
    ...(claims === undefined ? [] : [claims]),
  ]
    .map((verb) => `, ${verb}: 'stable'`)
    .join('')} },
  features: {},
  requires: [{ binary: 'true' }],
  options: {
    run: z.strictObject({ program: z.string().meta({ positional: true, executable: true, description: 'program' }), args: z.array(z.string()).default([]).meta({ positional: true, description: 'its arguments' }) }),
    resolve: z.strictObject({ pid, note }),
    dump: NoOptions,
    restore: NoOptions,
  },
  load: async () => ({
    ...verbs,
    ${dump === undefined ? '' : `dump: ${dump},`}
    ${Object.entries(more)
      .map(([verb, method]) => `${verb}: ${method},`)
      .join('\n    ')}
    ${resolve === undefined ? '' : `resolve: ${resolve},`}
    ${restore === undefined ? '' : `restore: ${restore},`}
  }),
})
`

const VERBS = `
export const verbs = {
  run: async (_host, { caller: { uid, gid, groups }, environment, workingDirectory }, { program, args }) => ({
    argv: [program, ...args], environment, workingDirectory, user: { uid, gid, groups }, identity: { pid: 1, note: '' }, problems: [],
  }),
  resolve: (host, { pid }) => host.identify(pid),
  dump: async () => ({ criu: {}, attachments: [], problems: [] }),
  restore: async () => ({ criu: {}, inherit: [], problems: [] }),
}
`

/** Writes the package, without the description that its build would make. Returns its directory. */
export function writePackage(directory: string, parts: PackageParts): string {
  const { name, version = '1.0.0', contract = `^${CONTRACT_VERSION}`, manifest = {} } = parts
  const write = (path: string, text: string): void => {
    mkdirSync(dirname(join(directory, path)), { recursive: true })
    writeFileSync(join(directory, path), text)
  }
  const about = { name: `cedana-plugin-${name}`, version, type: 'module', main: 'dist/index.js', cedana: { contract }, ...manifest }
  write('package.json', JSON.stringify(about))
  write('dist/index.js', code(parts))
  write('dist/verbs.js', VERBS)
  return directory
}

/** Command lines of runc and crun, which take the same. */
import { type Creation } from './options.js'
import { type Identity, isCrun } from './state.js'

type Log = Pick<Creation, 'log' | 'logFormat'>

const flag = (name: string, value: boolean): string[] => (value ? [`--${name}`] : [])
const option = (name: string, value: string): string[] => (value === '' ? [] : [`--${name}`, value])

/** `runc --root … --log …`: what stands before the verb. */
export function runtimeCommand(
  { runtime, root }: Identity,
  { log, logFormat }: Log = { log: '', logFormat: 'text' },
  { rootless, systemdCgroup }: Pick<Creation, 'rootless' | 'systemdCgroup'> = { rootless: 'auto', systemdCgroup: false },
): [string, ...string[]] {
  const isKnown = !isCrun(runtime) && rootless !== 'auto'
  return [
    runtime,
    '--root',
    root,
    ...option('log', log),
    ...(log === '' ? [] : ['--log-format', logFormat]),
    ...(isKnown ? ['--rootless', rootless] : []),
    ...flag('systemd-cgroup', systemdCgroup),
  ]
}

/** What `run` and `restore` share. */
export const creationFlags = (identity: Identity, options: Omit<Creation, 'id' | 'bundle' | 'root' | 'runtime'>): string[] => [
  ...flag('no-pivot', options.noPivot),
  ...(isCrun(identity.runtime) ? [] : flag('no-new-keyring', options.noNewKeyring)),
]

export interface Supervised {
  /** With a launcher: the files by which it tells the shim, in the directory of the job. */
  readonly pidFile: string
  readonly consoleSocket: string
  readonly log: string
}

export const supervisedIn = (directory: string): Supervised => ({
  pidFile: `${directory}/pid`,
  consoleSocket: `${directory}/console`,
  log: `${directory}/runtime.log`,
})

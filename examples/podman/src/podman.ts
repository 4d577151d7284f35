/** The command line of podman, and what it says of a container. */
import { CedanaError, type Host, type ParsedOptions, type Target, type z } from 'cedana/plugin'
import { ResolveOptions } from './index.js'

export type Identity = z.output<typeof ResolveOptions>
export const identityOf = (options: ParsedOptions): Identity => ResolveOptions.parse(options)

export interface Container {
  readonly Id: string
  readonly State: { readonly Pid: number; readonly Status: string; readonly ExitCode: number }
  readonly OCIRuntime: string
  readonly OCIConfigPath: string
}

/** `environment`: NAME=VALUE, on top of our own. */
export async function tell(
  host: Host,
  flags: readonly string[],
  args: readonly string[],
  environment: readonly string[] = [],
): Promise<string> {
  const { code, stdout, stderr } = await host.exec(['env', ...environment, 'podman', ...flags, ...args])
  if (code === 0) return stdout
  const reason =
    stderr
      .trim()
      .split('\n')
      .at(-1)
      ?.replace(/^Error: /, '') ?? ''
  if (/no such container|no container with name/i.test(reason))
    throw new CedanaError('NO_SUCH_CONTAINER', reason, { hint: 'see: cedana query podman' })
  throw new CedanaError('HOST_UNFIT', `podman ${args.slice(0, 2).join(' ')}: ${reason}`)
}

export async function inspect(host: Host, { container, podman }: Identity): Promise<Container> {
  const [found] = JSON.parse(await tell(host, podman, ['container', 'inspect', container])) as readonly Container[]
  if (found === undefined) throw new CedanaError('NO_SUCH_CONTAINER', `no container ${container}`)
  return found
}

/** As the plugin of runc knows it. */
export const ofRunc = ({ Id, OCIRuntime }: Container): ParsedOptions => ({ id: Id, runtime: OCIRuntime })

/** The first process of a container that runs or is paused. */
export async function live(host: Host, identity: Identity): Promise<Target> {
  const { State } = await inspect(host, identity)
  if (State.Pid > 0 && ['running', 'paused'].includes(State.Status)) return host.identify(State.Pid)
  throw new CedanaError('NO_SUCH_CONTAINER', `container ${identity.container} is not running (${State.Status})`)
}

import type { PluginView } from '../daemon/api/engine.js'
import { CedanaError } from '../plugins/contract/errors.js'
import type { Session } from './session.js'

/** As the daemon has them. Without one, as they lie on disk, where nobody has tried to load them. */
export async function knownPlugins(session: Session, { needs }: { readonly needs: boolean }): Promise<readonly PluginView[]> {
  const { signal } = session
  return session
    .ask((engine) => engine.listPlugins({ needs }, { signal }))
    .catch((thrown: unknown) => {
      if (CedanaError.from(thrown).code !== 'DAEMON_UNREACHABLE') throw thrown
      return session.ask((engine) => engine.listPlugins({ needs }, { signal }), { local: true })
    })
}

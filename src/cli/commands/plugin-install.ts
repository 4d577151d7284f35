import type { PluginView } from '../../daemon/api/engine.js'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { CliCommand } from '../command.js'
import { CliError } from '../exit-codes.js'
import type { Session } from '../session.js'
import { outputFlags } from '../shared-flags.js'

interface Done {
  readonly name: string
  readonly version?: string
  readonly outcome: string
}

/** A daemon takes up what has changed at once; without one there is nobody to tell. */
async function tellDaemon(session: Session): Promise<readonly PluginView[]> {
  return session
    .ask((engine) => engine.reloadPlugins({ signal: session.signal }))
    .catch((thrown: unknown) => {
      const error = CedanaError.from(thrown)
      if (error.code !== 'DAEMON_UNREACHABLE')
        session.note(session.errorStyle('yellow', `The daemon did not reload its plugins: ${error.message}`))
      return []
    })
}

const count = (done: number, verb: string): string => `${verb} ${done} plugin${done === 1 ? '' : 's'}`

/** Each by itself: what fails does not keep the others from it. */
async function each(session: Session, names: readonly string[], verb: string, work: (name: string) => Promise<Done>): Promise<void> {
  const done: Done[] = []
  const failures: unknown[] = []
  for (const name of names) {
    try {
      done.push(await work(name))
    } catch (thrown) {
      failures.push(thrown)
      if (names.length > 1) session.note(session.errorStyle('red', CedanaError.from(thrown).message))
    }
  }
  const loaded = done.some(({ outcome }) => outcome !== 'unchanged') ? await tellDaemon(session) : []
  const broken = loaded.find(({ name, problem }) => problem !== '' && done.some((one) => one.name === name))
  if (session.isStructured) await session.printDocument(done, session.format!)
  else if (session.options.quiet === true) done.forEach(({ name }) => session.print(name))
  else if (failures.length === 0) session.print(count(done.length, verb))
  if (broken !== undefined) throw new CedanaError('PLUGIN_FAILED', `the daemon cannot use plugin ${broken.name}: ${broken.problem}`)
  if (failures.length === 0) return
  throw names.length === 1 ? failures[0] : new CliError(`${count(done.length, verb)}, ${failures.length} failed`)
}

/** For people, as it goes. */
const say = (session: Session, text: string): void => {
  if (!session.isStructured && session.options.quiet !== true) session.print(text)
}

export function pluginInstall(command: CliCommand): void {
  outputFlags(
    command.argument('<PLUGIN...>', 'folder, tarball, or name[@version] of an npm package; criu for the CRIU that fits this kernel'),
  )
    .option('--integrity <SRI>', 'what the tarball must be: sha512-…, as npm writes it')
    .note('Local directories of plugins.local_search_path are searched for a name first. The code of a plugin runs as root, in the daemon.')
    .example('cedana plugin install ./my-runtime', 'cedana plugin install my-runtime@1.2.0', 'cedana plugin install criu')
    .does<{ readonly integrity?: string }>(async (session, { integrity }, names) => {
      if (integrity !== undefined && names.length > 1) throw new CliError('--integrity is of one plugin')
      const store = await session.world.openPluginStore(await session.loadConfig())
      await each(session, names, 'Installed', async (name) => {
        say(session, `Installing plugin ${name}...`)
        const done = await store.install(name, { integrity })
        const words = {
          installed: session.style('green', `Installed plugin ${done.name} (${done.version})`),
          updated: session.style('yellow', `Updated plugin ${done.name} (${done.version})`),
          unchanged: `Plugin ${done.name} is already installed`,
        }
        say(session, words[done.outcome])
        return done
      })
    })
}

export function pluginRemove(command: CliCommand): void {
  outputFlags(command.argument('[NAME...]', 'plugins'))
    .option('-a, --all', 'all that are installed')
    .note('Jobs of a plugin that is removed go on, and can be listed and killed.')
    .example('cedana plugin remove my-runtime')
    .does<{ readonly all?: boolean }>(async (session, { all = false }, given) => {
      const store = await session.world.openPluginStore(await session.loadConfig())
      const names = all ? await store.names() : given
      if (names.length === 0 && !all) throw new CliError('name a plugin, or say --all')
      await each(session, names, 'Removed', async (name) => {
        say(session, `Removing ${name}...`)
        await store.remove(name)
        say(session, session.style('yellow', `Removed ${name}`))
        return { name, outcome: 'removed' }
      })
    })
}

export function pluginReload(command: CliCommand): void {
  outputFlags(command)
    .example('cedana plugin reload')
    .does(async (session) => {
      const plugins = await session.ask((engine) => engine.reloadPlugins({ signal: session.signal }))
      if (session.isStructured) return session.printDocument(plugins, session.format!)
      if (reportLoaded(session, plugins) === 0) say(session, 'No plugins installed')
    })
}

/** Answers how many there are; one that was left out is an error. */
export function reportLoaded(session: Session, plugins: readonly PluginView[]): number {
  const external = plugins.filter(({ kind, origin }) => kind !== 'program' && origin !== 'built-in')
  const broken = external.filter(({ problem }) => problem !== '')
  for (const { name, version, problem } of external)
    say(
      session,
      problem === '' ? session.style('green', `Loaded ${name} (${version})`) : session.style('red', `Left out ${name}: ${problem}`),
    )
  if (broken.length > 0) throw new CliError(`${broken.length} plugin${broken.length === 1 ? '' : 's'} left out`)
  return external.length
}

/** The composition root: builds configuration, database, plugins, host and server, and starts them. Nothing else starts anything. */
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { rmdir } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CedanaError } from '../plugins/contract/errors.js'
import type { Log } from '../plugins/contract/host.js'
import type { Caller } from '../plugins/contract/job.js'
import type { RuntimeDescription } from '../plugins/description.js'
import { BUILTINS, loadBuiltins, loadGpu } from '../plugins/index.js'
import { Registry } from '../plugins/registry.js'
import { type Engine, localEngine } from './api/engine.js'
import { parseEndpoint } from './api/endpoint.js'
import { removeStale } from './api/listener.js'
import { changeConfig, type Config } from './config.js'
import type { OpenDatabase } from './db/database.js'
import { hostId } from './host/host-id.js'
import { cudaOf } from './host/cuda.js'
import { type CriuBinary, formatVersion } from './host/criu.js'
import { notifyServiceManager, peerCredentials, shimPath } from './host/kernel.js'
import { findCriu, hostFacts, type HostFacts } from './host/probe.js'
import * as processes from './host/processes.js'
import { JobLocks } from './jobs/lock.js'
import type { Logger } from 'pino'
import { ensureDirectories, type Environment, workDirectory } from './operations/environment.js'
import type { Faults } from './operations/operation.js'
import { PluginLoader } from './plugins/loader.js'
import type { PluginStore } from './plugins/store.js'

/** What a launcher, which starts with each container, has no use for. */
const verbsAndJobs = async () => ({
  ...(await import('./daemon.js')),
  ...(await import('./db/database.js')),
  ...(await import('./db/only-one.js')),
  ...(await import('./jobs/table.js')),
  ...(await import('./logging.js')),
  ...(await import('./operations/program.js')),
})

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }

/** How long running calls may take to end when the daemon is told to stop. */
const STOP_GRACE_MS = 5000
/** By then one that was told to stop has: its socket goes first. */
const STOPPED_MS = 20_000

const once = <T>(make: () => Promise<T>): (() => Promise<T>) => {
  let made: Promise<T> | undefined
  return () => {
    // A failure is not remembered: what was missing may be there the next time.
    made ??= make().catch((thrown: unknown) => {
      made = undefined
      throw thrown
    })
    return made
  }
}

interface Parts {
  readonly log: Logger
  readonly database: OpenDatabase
  readonly foreground: boolean
  readonly faults: Faults | undefined
  /** The configuration as it is by then. */
  readonly reread?: (() => Promise<Config>) | undefined
}

/** All plugins: those of the program, and a loader of the others that has not looked yet. */
async function pluginsOf(
  config: Config,
  log: Log,
  directory: () => Promise<string>,
): Promise<{ readonly runtimes: Registry; readonly plugins: PluginLoader }> {
  const { load_timeout_ms: loadTimeoutMs, verb_timeout_ms: verbTimeoutMs } = config.plugins
  const runtimes = new Registry(await loadBuiltins(), version)
  const times = { loadTimeoutMs, verbTimeoutMs }
  return {
    runtimes,
    plugins: new PluginLoader({ registry: runtimes, paths: config.plugins, ...times, log, workDirectory: directory }),
  }
}

async function buildEnvironment(
  config: Config,
  { log, database, foreground, faults, reread = async () => config }: Parts,
): Promise<{
  readonly env: Environment
  readonly plugins: PluginLoader
  readonly criuVersion: () => string
}> {
  const { JobTable, rememberedExit, removeRemains, setLevel } = await verbsAndJobs()
  let current = config
  let found: CriuBinary | undefined
  const searchPath = process.env['PATH'] ?? ''
  const where = { configured: config.criu.binary_path, binDir: config.plugins.bin_dir, searchPath, cacheDir: config.run_dir }
  const { runtimes, plugins } = await pluginsOf(config, log, () => workDirectory(env))
  const env: Environment = {
    get config() {
      return current
    },
    log,
    version,
    runtimes,
    reloadPlugins: () => plugins.loadAll(),
    reload: async () => {
      const { changed, atNextStart, ...change } = changeConfig(current, await reread())
      current = change.config
      setLevel(log, current.log_level)
      await plugins.loadAll()
      log.info({ ...(changed.length > 0 && { changed }), ...(atNextStart.length > 0 && { atNextStart }) }, 'configuration read again')
      return { changed, atNextStart }
    },
    jobs: new JobTable(database.jobs, hostId(), log, {
      exitOf: (job) => rememberedExit(env, job),
      removeRemains: (job, reason, exit) => removeRemains(env, job, reason, exit),
    }),
    checkpoints: database.checkpoints,
    locks: new JobLocks(),
    faults,
    criu: once(async () => (found = await findCriu(where))),
    facts: once<HostFacts>(hostFacts),
    gpu: once(async () => (await loadGpu()).load({ devicePrefix: config.gpu.device_prefix, lockTimeoutMs: config.gpu.lock_timeout_ms })),
    cuda: cudaOf(config.gpu),
    self: once(() => processes.identify(process.pid)),
    shimPath,
    searchPath,
    foreground,
    launcher: [process.execPath, fileURLToPath(new URL('../../bin/launcher', import.meta.url))],
  }
  return { env, plugins, criuVersion: () => (found ? formatVersion(found.version) : '') }
}

/**
 * The verbs in this process, for `--no-server`. `withJobs`: the request names a job, so the daemon's database is opened; else what is run or
 * restored is nobody's job and is written down nowhere.
 */
export async function openEngine(
  config: Config,
  { caller, withJobs }: { readonly caller: Caller; readonly withJobs: boolean },
): Promise<Engine> {
  const { createLogger, IN_MEMORY, openDatabase, verbsOf } = await verbsAndJobs()
  const log = createLogger({ level: config.log_level_no_server, format: config.log_format, env: process.env })
  const database = openDatabase(withJobs ? config.db.path : IN_MEMORY)
  const { env, plugins, criuVersion } = await buildEnvironment(config, { log, database, foreground: true, faults: undefined })
  const own = await workDirectory(env)
  await plugins.find()
  // A daemon may be running beside us: its jobs are watched here too, but nothing of it is tidied up.
  for (const job of env.jobs.all()) if (job.state === 'running') env.jobs.watch(job)
  return {
    ...localEngine(verbsOf(env, criuVersion), caller),
    close: () => {
      env.jobs.close()
      env.cuda.close()
      plugins.close()
      // Nobody will ever ask for what is written down nowhere.
      const forgotten = withJobs ? [] : env.jobs.all().map((job) => job.directory)
      database.close()
      for (const directory of [own, ...forgotten.filter(Boolean)])
        if (existsSync(directory)) rmSync(directory, { recursive: true, force: true })
    },
  }
}

/** The plugin directory, to install into and remove from. Needs no daemon. */
export async function openPluginStore(config: Config, workingDirectory: string): Promise<PluginStore> {
  const store = await import('./plugins/store.js')
  return new store.PluginStore({
    paths: config.plugins,
    loadTimeoutMs: config.plugins.load_timeout_ms,
    uid: process.getuid!(),
    workingDirectory,
    isBuiltIn: (name) => Object.hasOwn(BUILTINS, name),
  })
}

/** For authors of plugins, and for a look at a plugin in a process of its own. */
export async function describePlugin(
  config: Config,
  directory: string,
  { check }: { readonly check: boolean },
): Promise<RuntimeDescription> {
  const { writeDescription } = await import('./plugins/store.js')
  return writeDescription(directory, { check, limitMs: config.plugins.load_timeout_ms })
}

export interface DaemonOptions {
  /** Stops the daemon. */
  readonly signal: AbortSignal
  /** The configuration as it is by then. */
  readonly reread?: () => Promise<Config>
  /** For tests: what goes wrong at which step. */
  readonly faults?: Faults
  /** For tests: called when the daemon answers. */
  readonly onReady?: (address: string) => void
}

/** Runs until the signal. Resolves when everything is closed; jobs go on. */
export async function startDaemon(config: Config, options: DaemonOptions): Promise<void> {
  const { beTheOnlyOne, createLogger, letGo, LOCK, openDatabase, takeOver, verbsOf } = await verbsAndJobs()
  const log = createLogger({ level: config.log_level, format: config.log_format, env: process.env })
  const endpoint = parseEndpoint(config.protocol, config.address)
  log.info({ version, pid: process.pid }, 'starting daemon')
  // A failure that nobody waited for must not end what everybody else waits for.
  const onUnhandled = (reason: unknown): void => {
    log.error({ err: CedanaError.from(reason).message, stack: reason instanceof Error ? reason.stack : undefined }, 'unhandled failure')
  }
  process.on('unhandledRejection', onUnhandled)
  const onUncaught = (error: Error): void => {
    log.error({ err: error.message, stack: error.stack }, 'fatal failure')
    process.exit(1)
  }
  process.on('uncaughtException', onUncaught)
  // Until it works there is nothing to read again, but a reason to do so then.
  let isReady: (env: Environment) => void = () => undefined
  const ready = new Promise<Environment>((resolve) => (isReady = resolve))
  const onHangup = (): void =>
    void ready
      .then((env) => env.reload())
      .catch((thrown: unknown) => log.error({ err: CedanaError.from(thrown).message }, 'the configuration stays as it was'))
  process.on('SIGHUP', onHangup)
  const database = openDatabase(config.db.path)
  try {
    const { env, plugins, criuVersion } = await buildEnvironment(config, {
      log,
      database,
      foreground: false,
      faults: options.faults,
      reread: options.reread,
    })
    await ensureDirectories(env)
    // Before anything is taken over: what a living daemon works with looks like what a dead one has left.
    if (endpoint.protocol === 'unix') await removeStale(endpoint.path)
    using _run = await beTheOnlyOne(join(config.run_dir, 'daemon.lock'), STOPPED_MS)
    // One that works in another run directory does not stop for us.
    using _database = await beTheOnlyOne(config.db.path + LOCK, 0)
    database.hosts.put({ id: env.jobs.hostId, name: hostname(), bootId: processes.bootId, seenAt: Date.now() })
    // Before jobs are taken over: the plugins of those that have ended clean up after them.
    await plugins.loadAll()
    await takeOver(env)
    await env.criu().catch((thrown: unknown) => {
      log.warn({ err: CedanaError.from(thrown).message }, 'no working criu: nothing can be dumped or restored')
    })
    await env.facts()
    const { serve } = await import('./api/server.js')
    const server = await serve(verbsOf(env, criuVersion), {
      endpoint,
      mode: parseInt(config.socket.mode, 8),
      group: config.socket.group,
      tokenFile: config.tcp.token_file,
      peerCredentials,
      log,
    })
    log.info({ address: server.address }, 'server listening')
    isReady(env)
    const notify = (message: string): void => {
      const socket = process.env['NOTIFY_SOCKET']
      if (socket) notifyServiceManager(socket, message)
    }
    notify('READY=1')
    options.onReady?.(server.address)
    if (!options.signal.aborted) {
      await new Promise((resolve) => {
        options.signal.addEventListener('abort', resolve, { once: true })
      })
    }
    notify('STOPPING=1')
    log.info('stopping')
    await server.close(STOP_GRACE_MS)
    await letGo(env)
    plugins.close()
    // What an operation has left in it is for the next daemon to look at.
    await rmdir(await workDirectory(env)).catch(() => undefined)
  } finally {
    database.close()
    process.off('unhandledRejection', onUnhandled)
    process.off('uncaughtException', onUncaught)
    process.off('SIGHUP', onHangup)
  }
  log.info('stopped server gracefully')
}

/** The entry point of the command line. Only here do it and the daemon's own parts meet, and only when they are needed. */
import { readFileSync } from 'node:fs'
import { flushed } from './attach/write.js'
import { reasonOf } from '../plugins/contract/errors.js'
import { CliError, EXIT } from './exit-codes.js'
import { runCli } from './run-cli.js'
import type { World } from './session.js'

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }

/** The first failure of standard output. A reader that went away (`cedana ps | head -1`) is none. */
let lost: NodeJS.ErrnoException | undefined

function workingDirectory(): string {
  try {
    return process.cwd()
  } catch (thrown) {
    throw new CliError(`the working directory cannot be used: ${reasonOf(thrown)}`, { hint: 'change to another directory' })
  }
}

/** The world as it is. */
function realWorld(): World {
  const cancel = new AbortController()
  let isHeld = false
  let isDaemon = false
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      const isHangup = signal === 'SIGHUP'
      if (isHeld || (isDaemon && isHangup)) return
      // A terminal that goes away says so more than once.
      if (cancel.signal.aborted && !isHangup) process.exit(EXIT.detached)
      cancel.abort()
    })
  }
  process.stdout.on('error', (error: NodeJS.ErrnoException) => (lost ??= error))
  const caller = { uid: process.getuid!(), gid: process.getgid!(), groups: process.getgroups!(), pid: process.pid }
  return {
    version,
    env: process.env,
    get cwd() {
      return workingDirectory()
    },
    caller,
    // Made when they are first used: standard input is for few commands.
    get stdin() {
      return process.stdin
    },
    get stdout() {
      return process.stdout as NodeJS.WriteStream
    },
    get stderr() {
      return process.stderr as NodeJS.WriteStream
    },
    signal: cancel.signal,
    holdSignals: () => {
      isHeld = true
    },
    isExact: (word) =>
      !word.includes('\uFFFD') || ['cmdline', 'environ'].some((name) => readFileSync(`/proc/self/${name}`).includes(`${word}\0`)),
    loadConfig: async (sources) => (await import('../daemon/config.js')).loadConfig(sources).config,
    writeConfig: async (kind, sources) => (await import('../daemon/config.js')).writeConfig(kind, sources),
    describeConfig: async () => (await import('../daemon/config.js')).describeConfig(),
    connect: async ({ protocol, address, client, tcp }) =>
      (await import('../daemon/api/client.js')).connect({
        protocol,
        address,
        waitForReady: client.wait_for_ready,
        tokenFile: tcp.token_file,
      }),
    openLocal: async (config, { withJobs }) => (await import('../daemon/main.js')).openEngine(config, { caller, withJobs }),
    pluginAuthor: () => import('../daemon/plugins/author.js'),
    askRegistry: async (specs) => (await import('../daemon/plugins/available.js')).askRegistry(specs),
    openPluginStore: async (config) => (await import('../daemon/main.js')).openPluginStore(config, workingDirectory()),
    describePlugin: async (config, directory, options) => (await import('../daemon/main.js')).describePlugin(config, directory, options),
    startDaemon: async (config, reread) => {
      isDaemon = true
      await (await import('../daemon/main.js')).startDaemon(config, { signal: cancel.signal, reread })
    },
    builtins: async (names) => (await import('../plugins/index.js')).loadBuiltins(names),
    externals: async ({ plugins }) => (await import('../plugins/packages.js')).describedPlugins(plugins),
  }
}

/** Standard output may be a pipe that is slow to take: nothing is cut off. Where it is all the same, that is a failure. */
async function end(code: number): Promise<void> {
  await flushed(process.stdout)
  await new Promise(setImmediate) // by then a failed write has been told of
  const isCutOff = lost !== undefined && lost.code !== 'EPIPE'
  if (isCutOff) process.stderr.write(`Error: cannot write the output: ${reasonOf(lost)}\n`)
  await flushed(process.stderr)
  process.exit(isCutOff && code === EXIT.ok ? EXIT.error : code)
}

void runCli(realWorld(), process.argv.slice(2)).then(end)

/**
 * Configuration: one table of keys; defaults < file < environment < --config < flags, merged once, checked, frozen.
 * The table is checked by hand and not by zod: every start of the CLI reads it, and loading zod costs more than all the rest of a command.
 */
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { CedanaError, reasonOf } from '../plugins/contract/errors.js'

/** One key: how its value is checked, and all that help and documentation say about it. */
interface Key<T> {
  readonly default: T
  readonly description: string
  /** What a value must be, in words that end the sentence "must be …". */
  readonly expected: string
  readonly schema: object
  /** The value, or undefined when it is none. From JSON, a value has its JSON type; from a variable or a flag it is text. */
  readonly check: (value: unknown, isText: boolean) => T | undefined
  /** Further names of its environment variable. */
  readonly aliases: readonly string[]
  /** Never shown; a file that holds one is readable by its owner alone. */
  readonly isSecret: boolean
}
interface KeyOptions {
  readonly aliases?: readonly string[]
  readonly isSecret?: boolean
}

const key = <T>(parts: Pick<Key<T>, 'default' | 'description' | 'expected' | 'schema' | 'check'>, options: KeyOptions = {}): Key<T> => ({
  ...parts,
  aliases: options.aliases ?? [],
  isSecret: options.isSecret ?? false,
})

const text = (value: string, description: string, options?: KeyOptions): Key<string> =>
  key(
    { default: value, description, expected: 'a text', schema: { type: 'string' }, check: (v) => (typeof v === 'string' ? v : undefined) },
    options,
  )

const pattern = (value: string, regex: RegExp, expected: string, description: string): Key<string> =>
  key({
    default: value,
    description,
    expected,
    schema: { type: 'string', pattern: regex.source },
    check: (v) => (typeof v === 'string' && regex.test(v) ? v : undefined),
  })

const path = (value: string, description: string): Key<string> => pattern(value, /^\//, 'an absolute path', description)

const WORDS = new Map(
  Object.entries({ true: true, 1: true, yes: true, on: true, t: true, false: false, 0: false, no: false, off: false, f: false }),
)
const flag = (value: boolean, description: string, options?: KeyOptions): Key<boolean> =>
  key(
    {
      default: value,
      description,
      expected: 'true or false',
      schema: { type: 'boolean' },
      check: (v, isText) => (typeof v === 'boolean' ? v : isText && typeof v === 'string' ? WORDS.get(v.toLowerCase()) : undefined),
    },
    options,
  )

const integer = (value: number, [min, max]: readonly [number, number], description: string): Key<number> =>
  key({
    default: value,
    description,
    expected: `a whole number from ${min} to ${max}`,
    schema: { type: 'integer', minimum: min, maximum: max },
    check: (v, isText) => {
      const number = isText && typeof v === 'string' && /^-?\d+$/.test(v) ? Number(v) : v
      return typeof number === 'number' && Number.isInteger(number) && number >= min && number <= max ? number : undefined
    },
  })

/** `empty`: what an empty text stands for. */
const choice = <const V extends string>(
  value: NoInfer<V>,
  values: readonly V[],
  description: string,
  { empty, ...options }: KeyOptions & { readonly empty?: NoInfer<V> } = {},
): Key<V> =>
  key<V>(
    {
      default: value,
      description,
      expected: `one of ${values.join(', ')}`,
      schema: { type: 'string', enum: values },
      check: (v) => (v === '' ? empty : typeof v === 'string' ? values.find((one) => one === v.toLowerCase()) : undefined),
    },
    options,
  )

export const PROTOCOLS = ['unix', 'tcp', 'vsock'] as const
export type Protocol = (typeof PROTOCOLS)[number]
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'panic', 'disabled'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]
export const LOG_FORMATS = ['auto', 'text', 'json'] as const
export type LogFormat = (typeof LOG_FORMATS)[number]
export const COMPRESSIONS = ['none', 'tar', 'gzip', 'lz4', 'zlib', 'zstd'] as const
export type Compression = (typeof COMPRESSIONS)[number]

const INT32 = 2 ** 31 - 1

const KEYS = {
  address: text('', 'address of the daemon: a path (unix) or HOST:PORT (tcp); empty for /run/cedana.sock or 127.0.0.1:8080'),
  protocol: choice('unix', PROTOCOLS, 'how clients reach the daemon'),
  log_level: choice('info', LOG_LEVELS, 'least severe message that the daemon logs', { empty: 'disabled' }),
  log_level_no_server: choice('warn', LOG_LEVELS, 'the same for operations without a daemon', { empty: 'disabled' }),
  log_format: choice('auto', LOG_FORMATS, 'text for people or json for programs; auto: text on a terminal and in the journal, else json'),
  metrics: flag(false, 'export traces and metrics (OpenTelemetry)', { aliases: ['CEDANA_METRICS_ENABLED'] }),
  run_dir: path(
    '/run/cedana',
    'directory for what lives until the next boot: shims, logs of failed operations; for users other than root by default $XDG_RUNTIME_DIR/cedana or ~/.local/state/cedana',
  ),
  socket: {
    group: text('cedana', 'group that may connect to the unix socket; left as it is when there is no such group'),
    mode: pattern('0660', /^0?[0-7]{3}$/, 'an octal mode such as "0660"', 'mode of the unix socket'),
  },
  tcp: {
    token_file: path(
      '/run/cedana/token',
      'file with the token that callers over tcp must present; they then act as root; made by the daemon',
    ),
  },
  connection: {
    url: text('https://sandbox.cedana.ai/v1', 'base of the remote API', { aliases: ['CEDANA_URL'] }),
    auth_token: text('', 'bearer token of the remote API', { aliases: ['CEDANA_AUTH_TOKEN'], isSecret: true }),
    cluster_id: text('', 'id of the Kubernetes cluster', { aliases: ['CEDANA_CLUSTER_ID'] }),
  },
  jobs: {
    on_stop: choice('leave', ['leave', 'kill'], 'what becomes of running jobs when the daemon stops'),
  },
  checkpoint: {
    dir: text('/tmp', 'directory for checkpoints when a request names none; may be SCHEME://…'),
    compression: choice('none', COMPRESSIONS, 'how checkpoints are stored when a request does not say'),
    level: integer(0, [0, 22], 'level of the compression; 0: the default of the format'),
    streams: integer(0, [0, 64], 'parallel streams of a checkpoint when a request does not say; 0: off'),
    keep_last: integer(0, [0, 100_000], 'checkpoints of a job that stay when another is made, which counts; 0: all'),
    async: flag(false, 'upload to remote storage in the background'),
    stream_memory_limit: integer(
      4000,
      [1, INT32],
      'memory that an archive or the streams of a checkpoint may take while they are restored, in MB; files beyond it are unpacked into `checkpoint.dir`',
    ),
    memory_limit_mb: integer(512, [32, INT32], 'memory that pages of a dump may take on their way to the disk, compressed or not, in MiB'),
    keep_failed_logs: integer(20, [0, 10_000], 'CRIU logs of failed operations to keep; the oldest go first'),
  },
  db: {
    remote: flag(false, 'keep jobs in the remote database', { aliases: ['CEDANA_REMOTE'] }),
    path: path('/tmp/cedana.db', 'SQLite file with jobs and checkpoints'),
  },
  profiling: {
    enabled: flag(true, 'measure the steps of each operation and show them'),
    detailed: flag(true, 'show every step, not only the sums'),
    precision: choice('auto', ['auto', 'ns', 'us', 'ms', 's'], 'unit of durations'),
    path: text('', 'file to write the profile of a command to, as JSON'),
  },
  client: {
    wait_for_ready: flag(false, 'wait for a daemon that is not up yet instead of failing at once', { aliases: ['CEDANA_WAIT_FOR_READY'] }),
  },
  criu: {
    binary_path: text('', 'CRIU to use; empty: the one that came with cedana, else the one in PATH'),
    leave_running: flag(false, 'leave the target running after a dump'),
    manage_cgroups: choice('ignore', ['ignore', 'none', 'props', 'soft', 'full', 'strict', 'default'], 'how CRIU treats cgroups'),
    log_level: integer(2, [0, 4], 'verbosity of CRIU'),
  },
  gpu: {
    cuda_library: text('libcuda.so.1', 'library of the NVIDIA driver, by path or name'),
    nvml_library: text('libnvidia-ml.so.1', 'library that knows how much memory is in use on GPUs, by path or name'),
    device_prefix: text('/dev/nvidia', 'how paths of GPU devices begin'),
    lock_timeout_ms: integer(60_000, [1, INT32], 'how long a dump waits for work on a GPU to be done, in milliseconds'),
    call_timeout_ms: integer(
      60_000,
      [100, INT32],
      'how long the NVIDIA driver may take for a call, beyond what copying takes, in milliseconds',
    ),
    pool_size: integer(0, [0, 1024], 'GPU controllers started beforehand'),
    log_dir: text('/tmp', 'directory for GPU logs'),
    sock_dir: text('/tmp', 'directory for GPU sockets'),
    shm_size: integer(8 * 2 ** 30, [0, Number.MAX_SAFE_INTEGER], 'shared memory for a GPU job, in bytes'),
    debug: flag(false, 'log more about GPUs'),
    dedup_enabled: flag(false, 'store equal GPU memory once'),
    templates_enabled: flag(false, 'use GPU templates'),
  },
  plugins: {
    bin_dir: text('/usr/local/bin', 'directory for programs of plugins'),
    lib_dir: text('/usr/local/lib', 'directory for plugins, which are in cedana/plugins below it'),
    builds: choice('release', ['release', 'alpha'], 'which builds of plugins to offer', { aliases: ['CEDANA_PLUGINS_BUILD'] }),
    local_search_path: text('', 'directories to search for plugins first, separated by colons; a plugin, or with plugins in it'),
    load_timeout_ms: integer(10_000, [100, 600_000], 'time that an external plugin may take to load, in milliseconds'),
    verb_timeout_ms: integer(
      60_000,
      [100, 3_600_000],
      'time that an external plugin may take for one thing it is asked to do, in milliseconds',
    ),
  },
  slurm: {
    unprivileged: flag(false, 'run without root'),
    db_host: text('', 'host of the SLURM database'),
    db_socket: text('', 'socket of the SLURM database'),
    db_port: integer(3306, [1, 65535], 'port of the SLURM database'),
    db_name: text('slurm_acct_db', 'name of the SLURM database'),
  },
  aws: {
    access_key_id: text('', 'AWS access key', { aliases: ['AWS_ACCESS_KEY_ID'], isSecret: true }),
    secret_access_key: text('', 'AWS secret key', { aliases: ['AWS_SECRET_ACCESS_KEY'], isSecret: true }),
    region: text('', 'AWS region', { aliases: ['AWS_REGION'] }),
    endpoint: text('', 'S3 server other than AWS', { aliases: ['AWS_ENDPOINT'] }),
  },
}

type Values<T> = { readonly [K in keyof T]: T[K] extends Key<infer V> ? V : Values<T[K]> }
/** The merged configuration, with the names of the file. */
export type Config = Values<typeof KEYS>

type Tree = { readonly [name: string]: Key<unknown> | Tree }
const isKey = (node: Key<unknown> | Tree): node is Key<unknown> => typeof node.check === 'function'
function* flatten(tree: Tree, prefix = ''): Generator<[string, Key<unknown>]> {
  for (const [name, node] of Object.entries(tree)) {
    if (isKey(node)) yield [prefix + name, node]
    else yield* flatten(node, `${prefix}${name}.`)
  }
}
/** By dotted name. */
const TABLE: ReadonlyMap<string, Key<unknown>> = new Map(flatten(KEYS))
const variablesOf = (name: string, { aliases }: Key<unknown>): string[] => [`CEDANA_${name.toUpperCase().replaceAll('.', '_')}`, ...aliases]

export type Environment = Readonly<Record<string, string | undefined>>

export interface ConfigSources {
  /** --config: a JSON object. */
  readonly configJson?: string | undefined
  /** --config-dir */
  readonly configDir?: string | undefined
  readonly address?: string | undefined
  readonly protocol?: string | undefined
  readonly profiling?: boolean | undefined
  readonly profilingPath?: string | undefined
  /** --db */
  readonly db?: string | undefined
  readonly env: Environment
  readonly uid: number
}
const FLAGS = {
  address: 'address',
  protocol: 'protocol',
  profiling: 'profiling.enabled',
  profilingPath: 'profiling.path',
  db: 'db.path',
} as const

export interface LoadedConfig {
  readonly config: Config
  /** Where each value comes from, by dotted name: `default`, `/etc/cedana/config.json`, `CEDANA_ADDRESS`, `--config`, `--address`. */
  readonly origin: ReadonlyMap<string, string>
}

interface Setting {
  readonly value: unknown
  readonly origin: string
}
/** Values by dotted name; a later source replaces an earlier one. */
type Settings = Map<string, Setting>

const bad = (message: string, cause?: unknown): CedanaError => new CedanaError('BAD_OPTIONS', message, { cause })

function put(settings: Settings, name: string, value: unknown, origin: string, isText: boolean): void {
  const entry = TABLE.get(name)
  if (entry === undefined) throw bad(`unknown key ${name} in ${origin}`)
  const checked = entry.check(value, isText)
  if (checked === undefined) {
    const place = isText ? origin : `${name} in ${origin}`
    throw bad(`${place} must be ${entry.expected}${entry.isSecret ? '' : `, not ${JSON.stringify(value)}`}`)
  }
  settings.set(name, { value: checked, origin })
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value)

function putObject(settings: Settings, object: unknown, origin: string, prefix = ''): void {
  if (!isObject(object))
    throw bad(prefix === '' ? `${origin} must be a JSON object` : `${prefix.slice(0, -1)} in ${origin} must be an object`)
  for (const [name, value] of Object.entries(object)) {
    const full = prefix + name
    const isGroup = [...TABLE.keys()].some((one) => one.startsWith(`${full}.`))
    if (isGroup) putObject(settings, value, origin, `${full}.`)
    else put(settings, full, value, origin, false)
  }
}

function putJson(settings: Settings, json: string, origin: string): void {
  let object: unknown
  try {
    object = JSON.parse(json)
  } catch (cause) {
    throw bad(`${origin} is not valid JSON: ${(cause as Error).message}`, cause)
  }
  putObject(settings, object, origin)
}

function putEnvironment(settings: Settings, env: Environment): void {
  for (const [name, entry] of TABLE) {
    const variable = variablesOf(name, entry).find((one) => env[one] !== undefined && env[one] !== '')
    if (variable !== undefined) put(settings, name, env[variable], variable, true)
  }
}

/** --config-dir, CEDANA_CONFIG_DIR, /etc/cedana for root, else the user's own. */
export function configDirectory({ configDir, env, uid }: Pick<ConfigSources, 'configDir' | 'env' | 'uid'>): string {
  const chosen = configDir || env.CEDANA_CONFIG_DIR
  if (chosen) return chosen
  if (uid === 0) return '/etc/cedana'
  return join(env.XDG_CONFIG_HOME || join(homeOf(env), '.config'), 'cedana')
}

/** The file's text, undefined when there is none. */
function readFile(file: string, mayBeForbidden: boolean): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR' || (mayBeForbidden && code === 'EACCES')) return undefined
    throw bad(`cannot read ${file}: ${reasonOf(cause)}`, cause)
  }
}

function putFile(settings: Settings, sources: ConfigSources): void {
  const file = join(configDirectory(sources), 'config.json')
  const isChosen = Boolean(sources.configDir || sources.env.CEDANA_CONFIG_DIR)
  const own = readFile(file, false)
  if (own !== undefined) putJson(settings, own, file)
  if (own !== undefined || isChosen || sources.uid === 0) return
  // Root's file may hold secrets and then is closed to others: such a user goes on with the defaults.
  const shared = readFile('/etc/cedana/config.json', true)
  if (shared !== undefined) putJson(settings, shared, '/etc/cedana/config.json')
}

const homeOf = (env: Environment): string => env.HOME || homedir()

/** Users other than root have a run_dir of their own, for what they do without a daemon. */
function defaults({ uid, env }: Pick<ConfigSources, 'uid' | 'env'>): Settings {
  const settings: Settings = new Map([...TABLE].map(([name, { default: value }]) => [name, { value, origin: 'default' }]))
  const own = join(env.XDG_RUNTIME_DIR || join(homeOf(env), '.local', 'state'), 'cedana')
  if (uid !== 0) settings.set('run_dir', { value: own, origin: 'default' })
  return settings
}

function nest(settings: Settings): Record<string, unknown> {
  const root: Record<string, unknown> = {}
  for (const [name, { value }] of settings) {
    const [first, second] = name.split('.') as [string, string?]
    if (second === undefined) root[first] = value
    else ((root[first] ??= {}) as Record<string, unknown>)[second] = value
  }
  return root
}

function frozen(settings: Settings): Config {
  const config = nest(settings)
  for (const section of Object.values(config)) Object.freeze(section)
  return Object.freeze(config) as Config
}

export function loadConfig(sources: ConfigSources): LoadedConfig {
  const settings = defaults(sources)
  putFile(settings, sources)
  putEnvironment(settings, sources.env)
  if (sources.configJson !== undefined) putJson(settings, sources.configJson, '--config')
  for (const [flagName, name] of Object.entries(FLAGS)) {
    const value = sources[flagName as keyof typeof FLAGS]
    // An empty address or protocol is the documented default of the flag: as if not given.
    if (value !== undefined && value !== '')
      put(settings, name, value, `--${flagName === 'profilingPath' ? 'profiling-path' : flagName}`, true)
  }
  return { config: frozen(settings), origin: new Map([...settings].map(([name, { origin }]) => [name, origin])) }
}

/** Looked up by each operation anew. All others are for the start of the daemon, and what depends on them may be in use. */
const CHANGEABLE: ReadonlySet<string> = new Set([
  'log_level',
  'jobs.on_stop',
  'checkpoint.dir',
  'checkpoint.compression',
  'checkpoint.level',
  'checkpoint.streams',
  'checkpoint.keep_last',
  'checkpoint.stream_memory_limit',
  'checkpoint.memory_limit_mb',
  'checkpoint.keep_failed_logs',
  'criu.leave_running',
  'criu.manage_cgroups',
  'criu.log_level',
])
/** Of the commands, which read the configuration themselves. */
const NOT_OF_DAEMON = /^(client|profiling)[.]|^log_level_no_server$/

export interface ConfigChange {
  readonly config: Config
  /** Keys with a new value in it. */
  readonly changed: readonly string[]
  /** Keys that have another value in the new one, which waits. */
  readonly atNextStart: readonly string[]
}

/** What becomes of the configuration of a running daemon when a new one is read. */
export function changeConfig(old: Config, fresh: Config): ConfigChange {
  const valueOf = (config: Config, name: string): unknown =>
    name.split('.').reduce<unknown>((node, part) => (node as Record<string, unknown>)[part], config)
  const names = [...TABLE.keys()]
  const different = names.filter((name) => !NOT_OF_DAEMON.test(name) && valueOf(old, name) !== valueOf(fresh, name))
  const take = (name: string): Setting => ({ value: valueOf(CHANGEABLE.has(name) ? fresh : old, name), origin: '' })
  return {
    config: frozen(new Map(names.map((name) => [name, take(name)]))),
    changed: different.filter((name) => CHANGEABLE.has(name)),
    atNextStart: different.filter((name) => !CHANGEABLE.has(name)),
  }
}

/**
 * Writes config.json from defaults, environment and --config (`init`), or keeps what an existing file says and these do not (`merge`).
 * Returns its path.
 */
export function writeConfig(kind: 'init' | 'merge', sources: ConfigSources): string {
  const directory = configDirectory(sources)
  const file = join(directory, 'config.json')
  const settings = defaults(sources)
  const existing = kind === 'merge' ? readFile(file, false) : undefined
  if (existing !== undefined) putJson(settings, existing, file)
  putEnvironment(settings, sources.env)
  if (sources.configJson !== undefined) putJson(settings, sources.configJson, '--config')

  const holdsSecret = [...settings].some(([name, { value }]) => TABLE.get(name)?.isSecret === true && value !== '')
  try {
    mkdirSync(directory, { recursive: true, mode: 0o755 })
    replaceFile(file, `${JSON.stringify(nest(settings), null, 2)}\n`, holdsSecret ? 0o600 : 0o644)
  } catch (cause) {
    throw bad(`cannot write ${file}: ${reasonOf(cause)}`, cause)
  }
  return file
}

/** Readers see the old file or the whole new one. */
function replaceFile(file: string, content: string, mode: number): void {
  const temporary = `${file}.${process.pid}.tmp`
  rmSync(temporary, { force: true })
  try {
    const fd = openSync(temporary, 'wx', mode)
    try {
      writeSync(fd, content)
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    renameSync(temporary, file)
  } catch (cause) {
    rmSync(temporary, { force: true })
    throw cause
  }
}

export interface KeyDescription {
  readonly name: string
  readonly type: string
  readonly default: unknown
  readonly variables: readonly string[]
  readonly description: string
  /** A running daemon takes a new value when it is told to read again. */
  readonly isChangeable: boolean
}
/** Every key, for the documentation. */
export const describeConfig = (): readonly KeyDescription[] =>
  [...TABLE].map(([name, entry]) => ({
    name,
    type: entry.expected,
    default: entry.default,
    variables: variablesOf(name, entry),
    description: entry.description,
    isChangeable: CHANGEABLE.has(name),
  }))

/** JSON schema (draft 2020-12) of config.json. */
export function configSchema(): object {
  const describe = (tree: Tree): object => ({
    type: 'object',
    additionalProperties: false,
    properties: Object.fromEntries(
      Object.entries(tree).map(([name, node]) => [
        name,
        isKey(node) ? { ...node.schema, default: node.default, description: node.description } : describe(node),
      ]),
    ),
  })
  return { $schema: 'https://json-schema.org/draft/2020-12/schema', title: 'cedana configuration', ...describe(KEYS) }
}

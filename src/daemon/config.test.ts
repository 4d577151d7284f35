import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { changeConfig, configDirectory, configSchema, describeConfig, loadConfig, writeConfig, type ConfigSources } from './config.js'

let configDir: string
beforeEach(() => {
  configDir = mkdtempSync(join(tmpdir(), 'cedana-config-'))
})
afterEach(() => rmSync(configDir, { recursive: true, force: true }))

const sources = (more: Partial<ConfigSources> = {}): ConfigSources => ({ configDir, env: {}, uid: 0, ...more })
const load = (more?: Partial<ConfigSources>) => loadConfig(sources(more))
const file = (content: unknown): void =>
  writeFileSync(join(configDir, 'config.json'), typeof content === 'string' ? content : JSON.stringify(content))
const refused = (message: string | RegExp, more?: Partial<ConfigSources>): void =>
  expect(() => load(more)).toThrow(
    expect.objectContaining({ code: 'BAD_OPTIONS', message: typeof message === 'string' ? message : expect.stringMatching(message) }),
  )

describe('loadConfig', () => {
  it('has the defaults of the reference', () => {
    const { config, origin } = load()
    expect(config).toMatchObject({
      address: '',
      protocol: 'unix',
      log_level: 'info',
      log_level_no_server: 'warn',
      metrics: false,
      checkpoint: { dir: '/tmp', compression: 'none', streams: 0, async: false, stream_memory_limit: 4000 },
      db: { remote: false, path: '/tmp/cedana.db' },
      profiling: { enabled: true, detailed: true, precision: 'auto', path: '' },
      client: { wait_for_ready: false },
      criu: { binary_path: '', leave_running: false, manage_cgroups: 'ignore', log_level: 2 },
      gpu: { shm_size: 8 * 2 ** 30 },
      slurm: { db_port: 3306 },
      jobs: { on_stop: 'leave' },
      run_dir: '/run/cedana',
      socket: { group: 'cedana', mode: '0660' },
    })
    expect(new Set(origin.values())).toEqual(new Set(['default']))
    expect(Object.isFrozen(config) && Object.isFrozen(config.checkpoint)).toBe(true)
  })

  it('gives users other than root a run_dir of their own', () => {
    const runDir = (env: ConfigSources['env']): string => load({ uid: 1000, env }).config.run_dir
    expect(runDir({ HOME: '/home/u' })).toBe('/home/u/.local/state/cedana')
    expect(runDir({ HOME: '/home/u', XDG_RUNTIME_DIR: '/run/user/1000' })).toBe('/run/user/1000/cedana')
    expect(runDir({ HOME: '/home/u', CEDANA_RUN_DIR: '/mine' })).toBe('/mine')
  })

  it('lets each later source win: file, environment, --config, flags', () => {
    file({ address: '/file', log_level: 'warn', checkpoint: { dir: '/file', streams: 2 }, protocol: 'tcp' })
    const { config, origin } = load({
      env: { CEDANA_ADDRESS: '/env', CEDANA_CHECKPOINT_DIR: '/env', CEDANA_PROFILING_ENABLED: '0', CEDANA_PROTOCOL: 'TCP' },
      configJson: '{"address": "/json", "checkpoint": {"streams": 4}}',
      address: '/flag',
      protocol: 'UNIX',
    })
    expect(config).toMatchObject({
      address: '/flag',
      log_level: 'warn',
      checkpoint: { dir: '/env', streams: 4 },
      protocol: 'unix',
      profiling: { enabled: false },
    })
    expect(Object.fromEntries(origin)).toMatchObject({
      address: '--address',
      log_level: join(configDir, 'config.json'),
      'checkpoint.dir': 'CEDANA_CHECKPOINT_DIR',
      'checkpoint.streams': '--config',
      'db.path': 'default',
    })
  })

  it('knows the other names of variables, and takes an empty one for none', () => {
    expect(load({ env: { AWS_REGION: 'x', CEDANA_REMOTE: 'true', CEDANA_WAIT_FOR_READY: 'yes' } }).config).toMatchObject({
      aws: { region: 'x' },
      db: { remote: true },
      client: { wait_for_ready: true },
    })
    expect(load({ env: { AWS_REGION: 'x', CEDANA_AWS_REGION: 'y' } }).config.aws.region).toBe('y')
    expect(load({ env: { CEDANA_LOG_LEVEL: '', CEDANA_CHECKPOINT_STREAMS: '' } }).config.log_level).toBe('info')
    file({ log_level: '' })
    expect(load().config.log_level).toBe('disabled')
  })

  it('says in one line what is wrong and where', () => {
    const path = join(configDir, 'config.json')
    refused(/^--config is not valid JSON: /, { configJson: '{' })
    refused('--config must be a JSON object', { configJson: '[]' })
    refused('unknown key checkpoint.stream in --config', { configJson: '{"checkpoint": {"stream": 1}}' })
    refused('unknown key nope in --config', { configJson: '{"nope": 1}' })
    refused('unknown key constructor in --config', { configJson: '{"constructor": 1}' })
    refused('checkpoint in --config must be an object', { configJson: '{"checkpoint": 3}' })
    refused('profiling.enabled in --config must be true or false, not "true"', { configJson: '{"profiling": {"enabled": "true"}}' })
    refused('checkpoint.streams in --config must be a whole number from 0 to 64, not 1.5', {
      configJson: '{"checkpoint": {"streams": 1.5}}',
    })
    refused('CEDANA_CHECKPOINT_STREAMS must be a whole number from 0 to 64, not "many"', { env: { CEDANA_CHECKPOINT_STREAMS: 'many' } })
    refused('CEDANA_METRICS must be true or false, not "maybe"', { env: { CEDANA_METRICS: 'maybe' } })
    refused('--protocol must be one of unix, tcp, vsock, not "http"', { protocol: 'http' })
    refused('db.path in --config must be an absolute path, not "x"', { configJson: '{"db": {"path": "x"}}' })
    refused('connection.auth_token in --config must be a text', { configJson: '{"connection": {"auth_token": 7}}' })
    file('{"log_level": 3}')
    refused(`log_level in ${path} must be one of trace, debug, info, warn, error, fatal, panic, disabled, not 3`)
    file('')
    refused(/^\/.*config\.json is not valid JSON/)
    rmSync(path)
    mkdirSync(path)
    refused(/^cannot read \/.*config\.json/)
  })
})

describe('changeConfig', () => {
  const of = (json: string) => load({ configJson: json }).config

  it('takes what operations look up, and names what waits', () => {
    const old = of('{"log_level": "info", "db": {"path": "/a"}}')
    const fresh = of('{"log_level": "debug", "db": {"path": "/b"}, "checkpoint": {"level": 3}, "profiling": {"enabled": false}}')
    const { config, changed, atNextStart } = changeConfig(old, fresh)
    expect({ changed, atNextStart }).toEqual({ changed: ['log_level', 'checkpoint.level'], atNextStart: ['db.path'] })
    expect(config).toEqual({ ...old, log_level: 'debug', checkpoint: { ...old.checkpoint, level: 3 } })
    expect(Object.isFrozen(config.checkpoint)).toBe(true)
    expect(changeConfig(config, fresh)).toMatchObject({ changed: [], atNextStart: ['db.path'] })
  })
})

describe('configDirectory', () => {
  it('depends on who asks', () => {
    expect(configDirectory({ env: {}, uid: 0 })).toBe('/etc/cedana')
    expect(configDirectory({ env: { HOME: '/h' }, uid: 5 })).toBe('/h/.config/cedana')
    expect(configDirectory({ env: { HOME: '/h', XDG_CONFIG_HOME: '/x' }, uid: 5 })).toBe('/x/cedana')
    expect(configDirectory({ env: { CEDANA_CONFIG_DIR: '/e' }, uid: 0 })).toBe('/e')
    expect(configDirectory({ configDir: '/f', env: { CEDANA_CONFIG_DIR: '/e' }, uid: 0 })).toBe('/f')
  })
})

describe('writeConfig', () => {
  const read = (): Record<string, Record<string, unknown>> => JSON.parse(readFileSync(join(configDir, 'config.json'), 'utf8')) as never

  it('writes defaults with environment and --config over them, and what it wrote loads', () => {
    const home = configDir
    configDir = join(home, 'new', 'dir')
    const path = writeConfig('init', sources({ env: { CEDANA_CHECKPOINT_DIR: '/env' }, configJson: '{"criu": {"log_level": 4}}' }))
    expect(path).toBe(join(configDir, 'config.json'))
    expect(read()).toMatchObject({ protocol: 'unix', checkpoint: { dir: '/env' }, criu: { log_level: 4 } })
    expect(statSync(path).mode & 0o777).toBe(0o644)
    expect(statSync(configDir).mode & 0o777).toBe(0o755)
    expect(load().config.checkpoint.dir).toBe('/env')
    configDir = home
  })

  it('init replaces a file, even a broken one; merge keeps what it says', () => {
    file({ checkpoint: { dir: '/old', streams: 3 } })
    writeConfig('merge', sources({ env: { CEDANA_CHECKPOINT_DIR: '/env' } }))
    expect(read().checkpoint).toMatchObject({ dir: '/env', streams: 3, compression: 'none' })
    file('{broken')
    expect(() => writeConfig('merge', sources())).toThrow(/not valid JSON/)
    writeConfig('init', sources())
    expect(read().checkpoint).toMatchObject({ dir: '/tmp', streams: 0 })
  })

  it('keeps a secret to its owner', () => {
    file({})
    chmodSync(join(configDir, 'config.json'), 0o644)
    const path = writeConfig('init', sources({ env: { CEDANA_AUTH_TOKEN: 's3cret' } }))
    expect(statSync(path).mode & 0o777).toBe(0o600)
  })

  it('says so when it cannot', () => {
    file({})
    const below = join(configDir, 'config.json', 'x')
    expect(() => writeConfig('init', sources({ configDir: below }))).toThrow(
      expect.objectContaining({ code: 'BAD_OPTIONS', message: expect.stringMatching(/^cannot write/) }),
    )
  })
})

describe('documentation', () => {
  it('lists every key with its variables', () => {
    const keys = describeConfig()
    expect(keys.find(({ name }) => name === 'aws.region')).toMatchObject({ variables: ['CEDANA_AWS_REGION', 'AWS_REGION'] })
    expect(keys.find(({ name }) => name === 'plugins.builds')).toMatchObject({
      default: 'release',
      variables: ['CEDANA_PLUGINS_BUILDS', 'CEDANA_PLUGINS_BUILD'],
    })
    expect(keys.every(({ description }) => description.length > 5)).toBe(true)
  })
  it('has a schema', () => {
    expect(configSchema()).toMatchObject({
      additionalProperties: false,
      properties: { checkpoint: { properties: { compression: { enum: ['none', 'tar', 'gzip', 'lz4', 'zlib', 'zstd'] } } } },
    })
  })
})

/** The package as users get it: packed, installed by npm somewhere else, and at work there. Its native parts are those of the checkout. */
import { execFile, spawnSync } from 'node:child_process'
import { cpSync, existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { beforeAll, expect, test } from 'vitest'
import { checkoutRegistry } from '../support/checkout-registry.js'
import { isAlive } from '../support/processes.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const ROOT = join(import.meta.dirname, '..', '..')
const execute = promisify(execFile)
const world = useWorld({ withoutDaemon: true })
const prefix = (): string => join(world.dir, 'prefix')
const home = (): string => join(prefix(), 'lib', 'node_modules', 'cedana')

beforeAll(async () => {
  const { stdout } = await execute('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', world.dir], { cwd: ROOT })
  const [packed] = JSON.parse(stdout) as readonly { filename: string }[]
  const registry = await checkoutRegistry()
  try {
    const env = { ...world.env, npm_config_registry: registry.url, npm_config_cache: join(world.dir, 'npm'), npm_config_fetch_retries: '0' }
    const flags = ['--prefix', prefix(), '--ignore-scripts', '--no-audit', '--no-fund', join(world.dir, packed!.filename)]
    await execute('npm', ['install', '--global', ...flags], { env, cwd: world.dir })
  } finally {
    registry.close()
  }
  // Built in a minute from the same sources; then npm's step, which takes what is built.
  cpSync(join(ROOT, 'build', 'Release'), join(home(), 'build', 'Release'), { recursive: true })
  await execute(process.execPath, ['scripts/install.mjs'], { env: world.env, cwd: home() })
}, 120_000)

const installed = (...argv: string[]): { code: number | null; stdout: string; stderr: string } => {
  const { status, stdout, stderr } = spawnSync(join(prefix(), 'bin', 'cedana'), argv, { env: world.env, encoding: 'utf8', timeout: 60_000 })
  return { code: status, stdout, stderr }
}

test('brings what its native parts are built from, and nothing of its tests', () => {
  const sources = readdirSync(join(ROOT, 'addon'), { recursive: true, encoding: 'utf8' }).filter((name) => /[.](cc|h)$/.test(name))
  expect(sources.filter((name) => !existsSync(join(home(), 'addon', name)))).toEqual([])
  for (const name of ['CMakeLists.txt', 'scripts/setup', 'systemd/cedana.service', 'man/cedana.1', 'dist/author/plugin.js'])
    expect(existsSync(join(home(), name)), name).toBe(true)
  for (const name of ['man1/cedana.1', 'man1/cedana-dump.1', 'man5/cedana.json.5'])
    expect(existsSync(join(prefix(), 'share', 'man', name)), name).toBe(true)
  const names = readdirSync(home(), { recursive: true, encoding: 'utf8' })
  expect(names.filter((name) => !/^(node_modules|examples)[/]/.test(name) && /[.]test[.]ts$|^(src|test|bench)$/.test(name))).toEqual([])
})

test('starts, knows its version, and finds this host fit', () => {
  expect(installed('--version')).toEqual({ code: 0, stdout: expect.stringMatching(/^cedana version \d+\.\d+\.\d+\n$/), stderr: '' })
  expect(installed('check')).toMatchObject({ code: 0, stderr: '' })
})

test('runs, dumps and restores a process', async () => {
  expect(installed('run', 'process', '--no-server', '--', 'sh', '-c', 'echo hello; exit 42')).toEqual({
    code: 42,
    stdout: 'hello\n',
    stderr: '',
  })
  const counter = await world.foreign('sleep')
  const dumped = installed('dump', 'process', String(counter.pid), '--no-server')
  expect(dumped).toMatchObject({ code: 0, stderr: '' })
  expect(isAlive(counter.pid)).toBe(false)
  const path = /^Dumped to (.+)$/m.exec(dumped.stdout)![1]!
  const pidFile = join(world.dir, 'pid')
  const argv = ['restore', 'process', '--no-server', '--path', path, '--pid-file', pidFile]
  const restored = execute(join(prefix(), 'bin', 'cedana'), argv, { env: world.env })
  await until('it is back', () => existsSync(pidFile) && readFileSync(pidFile, 'utf8') === String(counter.pid))
  process.kill(counter.pid, 'SIGUSR1')
  expect((await restored).stdout).toBe('PASS\n')
})

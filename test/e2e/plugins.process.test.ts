/** Plugins that are packages of their own: good ones do what built-in ones do, and bad ones are told of and harm nobody. */
import { createHash } from 'node:crypto'
import { createServer, type Server } from 'node:http'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { PluginView } from '../../src/daemon/api/engine.js'
import { writePackage, type PackageParts } from '../support/plugin-package.js'
import { isAlive } from '../support/processes.js'
import { until } from '../support/wait.js'
import { CEDANA, useWorld, type Job } from '../support/world.js'

const VERB_MS = 3000
const world = useWorld({
  env: { CEDANA_PLUGINS_LOAD_TIMEOUT_MS: '6000', CEDANA_PLUGINS_VERB_TIMEOUT_MS: String(VERB_MS) },
})
const places = (): string => join(world.pluginDir, 'cedana', 'plugins')

/** By what makes them. */
const descriptions = new Map<string, string>()

/** As an author builds it: with its description. */
async function build(parts: PackageParts, directory = join(world.work(), parts.name)): Promise<string> {
  writePackage(directory, parts)
  const [file, key] = [join(directory, 'cedana-plugin.json'), JSON.stringify(parts)]
  const known = descriptions.get(key)
  if (known === undefined) await world.ok(['plugin', 'manifest', directory])
  else writeFileSync(file, known)
  descriptions.set(key, readFileSync(file, 'utf8'))
  return directory
}

async function install(parts: PackageParts): Promise<void> {
  await world.ok(['plugin', 'install', await build(parts)])
}

async function listed(name: string): Promise<PluginView & { origin: string }> {
  const { stdout } = await world.ok(['plugin', 'list', name, '--offline', '-o', 'json'])
  const [one] = JSON.parse(stdout) as PluginView[]
  if (one === undefined) throw new Error(`no plugin ${name} in ${stdout}`)
  return one
}

/** A job of another runtime, which must not notice anything. */
let bystander: Job
beforeAll(async () => {
  bystander = await world.job('eventfd')
}, 30_000)
beforeEach(async () => {
  if (existsSync(places()) && readdirSync(places()).some((name) => !name.startsWith('.'))) await world.ok(['plugin', 'remove', '--all'])
})
afterAll(async () => {
  await bystander.verify()
})

describe('an installed plugin', () => {
  test('is offered by the command line with its own flags, and does what it claims', async () => {
    await install({ name: 'alien' })
    const help = (await world.ok(['manage', 'alien', '--help'])).stdout
    expect(help).toContain('-n, --note <TEXT>')
    expect(help).toContain('process id')
    const features = (await world.ok(['features'])).stdout
    expect(features).toMatch(/FEATURE +ALIEN .*PROCESS +RUNC/)
    for (const [name, version] of [
      ['criu', '>=3[.]16'],
      ['runc', '>=1[.]1'],
    ] as const)
      expect(features).toMatch(new RegExp(`^runc +${name} +${version} +\\d`, 'm'))
    expect(features).toMatch(/^cuda +CUDA driver +>=570 +(missing|\d)/m)
    expect(await listed('alien')).toMatchObject({ origin: 'installed', version: '1.0.0', problem: '' })

    const started = await world.foreign('eventfd')
    const jid = world.jid('alien')
    await world.ok(['manage', 'alien', String(started.pid), '--jid', jid, '--note', 'hello'])
    expect((await world.row(jid))?.[1]).toBe('alien')
    const path = await world.dump({ ...started, jid })
    expect(isAlive(started.pid)).toBe(false)
    await world.ok(['restore', 'alien', '--path', path])
    await started.verify()
    await world.fails(['dump', 'alien', 'nonsense'])
    expect((await world.fails(['freeze', 'job', jid])).stderr).toBeTruthy()
  })

  test('runs jobs, without a daemon too', async () => {
    await install({ name: 'alien' })
    const { stdout } = await world.ok(['run', 'alien', '--no-server', 'sh', '--', '-c', 'echo from an alien'])
    expect(stdout).toContain('from an alien')
  })

  test('is updated in all of its files, without a restart', async () => {
    await install({ name: 'alien', version: '1.0.0' })
    const directory = await build({ name: 'alien', version: '1.1.0' })
    const verbs = join(directory, 'dist/verbs.js')
    writeFileSync(verbs, readFileSync(verbs, 'utf8').replace('host.identify(pid)', "Promise.reject(new Error('the new one'))"))
    const { stdout } = await world.ok(['plugin', 'install', directory])
    expect(stdout).toContain('Updated plugin alien (1.1.0)')
    expect(await listed('alien')).toMatchObject({ version: '1.1.0' })
    expect((await world.fails(['manage', 'alien', '1'])).stderr).toContain('plugin alien failed in resolve: the new one')
    expect(readdirSync(join(places(), '.store')).filter((name) => name.startsWith('alien'))).toHaveLength(1)
    expect((await world.ok(['plugin', 'install', directory])).stdout).toContain('Plugin alien is already installed')
  })

  test('is removed while its jobs run: they are listed, can be killed, and say what they lack', async () => {
    await install({ name: 'alien' })
    const started = await world.foreign('eventfd')
    const jid = world.jid('orphan')
    await world.ok(['manage', 'alien', String(started.pid), '--jid', jid])
    expect((await world.ok(['plugin', 'remove', 'alien'])).stdout).toContain('Removed alien\nRemoved 1 plugin\n')
    expect((await world.fails(['plugin', 'remove', 'alien'])).stderr).toContain('Plugin alien is not installed')
    expect((await world.row(jid))?.slice(1, 2)).toEqual(['alien'])
    const refused = await world.fails(['dump', 'job', jid])
    expect(refused.stderr).toContain('no runtime plugin named alien')
    expect(refused.stderr).toContain('cedana plugin install')
    expect(isAlive(started.pid)).toBe(true)
    await world.quick(['kill', jid])
    await until('it has ended', async () => !isAlive(started.pid))
  })

  test('an operation that is under way ends as it began', async () => {
    const [begun, goesOn] = [join(world.work(), 'begun'), join(world.work(), 'goes-on')]
    const slow = `async (host, { pid }) => {
      fs.writeFileSync('${begun}', '')
      while (!fs.existsSync('${goesOn}')) await new Promise((done) => setTimeout(done, 10))
      return host.identify(pid)
    }`
    await install({ name: 'alien', first: "import fs from 'node:fs'", more: { upcoming: slow } })
    const started = await world.foreign('eventfd')
    const jid = world.jid('slow')
    const managing = world.ok(['manage', 'alien', String(started.pid), '--upcoming', '--jid', jid])
    await until('it has begun', async () => existsSync(begun))
    await world.ok(['plugin', 'remove', 'alien'])
    writeFileSync(goesOn, '')
    expect((await managing).stdout).toContain(`Managing alien PID ${started.pid}`)
    await world.quick(['kill', jid])
  })
})

describe('a plugin that does wrong', () => {
  test('hangs in dump: given up, the target untouched', async () => {
    await install({ name: 'alien', dump: '() => new Promise(() => undefined)' })
    const started = await world.foreign('eventfd')
    const refused = await world.fails(['dump', 'alien', String(started.pid)])
    expect(refused.stderr).toContain(`plugin alien did not finish dump within ${VERB_MS / 1000} s`)
    await started.verify()
  })

  test('throws in dump, or gives no plan: its name is in the message, the target untouched', async () => {
    const started = await world.foreign('eventfd')
    await install({ name: 'alien', dump: '() => { undefined.x }' })
    expect((await world.fails(['dump', 'alien', String(started.pid)])).stderr).toMatch(
      /plugin alien failed in dump: Cannot read properties/,
    )
    await install({ name: 'alien', version: '1.0.1', dump: 'async () => ({ criu: 1 })' })
    expect((await world.fails(['dump', 'alien', String(started.pid)])).stderr).toContain(
      'plugin alien gave a result of dump that is none at criu',
    )
    await started.verify()
  })

  test('throws where nobody waits for it: told of with its name, and the next verb has it anew', async () => {
    const later = "async (host, { pid }) => { setTimeout(() => { throw new Error('much later') }, 20); return host.identify(pid) }"
    await install({ name: 'alien', resolve: later })
    const started = await world.foreign('eventfd')
    await world.ok(['manage', 'alien', String(started.pid), '--jid', world.jid('later')])
    await until('it is told of', async () => (await listed('alien')).problem !== '')
    expect((await listed('alien')).problem).toBe('plugin alien failed after resolve: much later (thrown where nothing waited for it)')
    expect((await world.fails(['features', '--errors'])).stderr + (await world.cedana(['features', '--errors'])).stdout).toContain(
      'much later',
    )
    await world.ok(['manage', 'alien', String((await world.foreign('eventfd')).pid), '--jid', world.jid('again')])
  })

  const refusals: readonly (readonly [what: string, parts: Partial<PackageParts>, message: RegExp])[] = [
    ['throws on load', { first: "throw new Error('no mood')" }, /its code fails as it is loaded: no mood/],
    ['never loads', { first: 'await new Promise((done) => setTimeout(done, 60_000))' }, /did not load within 6 s/],
    ['ends the process', { first: 'process.exit(0)' }, /its code fails as it is loaded: it ended its process \(exit code 0\)/],
    ['computes without end as it is loaded', { first: 'while (true);' }, /did not load within 6 s/],
    ['claims a verb that it does not have', { claims: 'query' }, /it claims query and does not have it/],
    ['has the wrong version of the contract', { contract: '^2.0' }, /was made for version \^2\.0 of the plugin contract, this is 1\./],
    ['is called like a built-in', { name: 'runc' }, /is called runc, and that is the name of a plugin of cedana itself/],
    ['has no version of the contract', { manifest: { cedana: {} } }, /is not a plugin of cedana: its package.json has no cedana.contract/],
    [
      'needs other packages',
      { manifest: { dependencies: { 'left-pad': '*' } } },
      /depends on left-pad: a plugin imports cedana\/plugin alone/,
    ],
    ['is not built', { manifest: { main: 'dist/nothing.js' } }, /has no file dist\/nothing\.js/],
  ]
  test.each(refusals)('%s: not installed, and nothing is left', async (_what, parts, message) => {
    const directory = await build({ name: 'alien' })
    const description = readFileSync(join(directory, 'cedana-plugin.json'), 'utf8').replace(
      '"alien"',
      JSON.stringify(parts.name ?? 'alien'),
    )
    writePackage(directory, { name: 'alien', ...parts })
    writeFileSync(join(directory, 'cedana-plugin.json'), description)
    const before = (await world.ok(['plugin', 'list', '-q'])).stdout
    expect((await world.fails(['plugin', 'install', directory])).stderr).toMatch(message)
    expect((await world.ok(['plugin', 'list', '-q'])).stdout).toBe(before)
    expect(readdirSync(join(places(), '.store')).filter((name) => !name.startsWith('.'))).toEqual([])
  })

  test('is not what it was described to be: not installed', async () => {
    const directory = await build({ name: 'alien' })
    writePackage(directory, { name: 'alien', summary: 'something else' })
    expect((await world.fails(['plugin', 'install', directory])).stderr).toContain('its code is not what cedana-plugin.json says')
    rmSync(join(directory, 'cedana-plugin.json'))
    const refused = await world.fails(['plugin', 'install', directory])
    expect(refused.stderr).toContain('has no cedana-plugin.json')
    expect(refused.stderr).toContain('cedana plugin manifest')
  })

  test('is of a kind that cannot be added', async () => {
    const directory = await build({ name: 'alien' })
    const file = join(directory, 'cedana-plugin.json')
    writeFileSync(file, readFileSync(file, 'utf8').replace('"kind": "runtime"', '"kind": "storage"'))
    const refusal = 'a plugin of kind storage cannot be added yet: only runtimes can be added'
    expect((await world.fails(['plugin', 'install', directory])).stderr).toContain(refusal)
    writeFileSync(join(directory, 'dist/index.js'), "export const plugin = { kind: 'gpu', name: 'alien', load: async () => ({}) }")
    expect((await world.fails(['plugin', 'manifest', directory])).stderr).toContain('a plugin of kind gpu cannot be added yet')
  })

  test('has the name of another installed plugin', async () => {
    await install({ name: 'alien' })
    const other = await build({ name: 'alien', manifest: { name: 'another-package' } })
    expect((await world.fails(['plugin', 'install', other])).stderr).toContain(
      'another-package is called alien, like the installed cedana-plugin-alien',
    )
  })

  test('has a link in it', async () => {
    const directory = await build({ name: 'alien' })
    symlinkSync('/etc/passwd', join(directory, 'dist/passwd'))
    expect((await world.fails(['plugin', 'install', directory])).stderr).toContain('is neither a file nor a directory')
  })
})

describe('the daemon', () => {
  const entry = (name: string): string => join(places(), name, 'dist/index.js')
  /** Of a plugin that is fine until there is this file. */
  const spoilt = (): string => join(world.dir, 'spoilt')
  const whenSpoilt = (code: string): string => `import { existsSync } from 'node:fs'\nif (existsSync(${JSON.stringify(spoilt())})) ${code}`
  afterEach(() => rmSync(spoilt(), { force: true }))

  test('leaves out what does not load, says so, and has the others', async () => {
    await install({ name: 'other' })
    await world.stopDaemon()
    await install({ name: 'alien', first: whenSpoilt("throw new Error('spoilt')") })
    writeFileSync(spoilt(), '')
    await world.startDaemon()
    const reloaded = await world.fails(['plugin', 'reload'])
    expect(reloaded.stdout).toContain('Left out alien: its code fails as it is loaded: spoilt')
    expect(reloaded.stdout).toContain('Loaded other (1.0.0)')
    expect(await listed('alien')).toMatchObject({ problem: expect.stringContaining('spoilt') })
    expect((await world.ok(['plugin', 'list', '--offline'])).stdout).toMatch(/alien +3 KiB +broken/)
    const check = await world.cedana(['daemon', 'check', '--full', '-o', 'json'])
    expect(JSON.stringify(JSON.parse(check.stdout))).toContain('spoilt')
    expect(readFileSync(world.daemonLog, 'utf8')).toMatch(/"plugin":"alien".*spoilt.*plugin left out/)
    expect((await world.fails(['manage', 'alien', '1'])).stderr).toContain('plugin alien cannot be used')
  })

  test('starts with a broken plugin, and with one that never loads', async () => {
    await install({ name: 'other' })
    await world.stopDaemon()
    await install({ name: 'alien', first: whenSpoilt('await new Promise(() => undefined)') })
    writeFileSync(spoilt(), '')
    await world.startDaemon()
    expect(await listed('alien')).toMatchObject({ problem: expect.stringContaining('did not load within 6 s') })
    expect(await listed('other')).toMatchObject({ problem: '' })
  })

  test('loads nothing that others could change', async () => {
    await install({ name: 'alien' })
    writeFileSync(entry('alien'), '// changed', { flag: 'a' })
    expect((await world.fails(['plugin', 'reload'])).stdout).toContain('Left out alien: its files have been changed since it was installed')
    chmodSync(entry('alien'), 0o666)
    expect((await world.fails(['plugin', 'reload'])).stdout).toMatch(/Left out alien: .*index\.js can be written by others than root/)
    chmodSync(entry('alien'), 0o644)
    chownSync(entry('alien'), 1234, 1234)
    expect((await world.fails(['plugin', 'reload'])).stdout).toMatch(/Left out alien: .*index\.js belongs to user 1234/)
  })

  test('takes orders about plugins from root alone', async () => {
    const directory = await build({ name: 'alien' })
    execFileSync('chmod', ['-R', 'a+rX', world.dir])
    expect((await world.fails(['plugin', 'install', directory], { uid: 1234, cwd: '/' })).stderr).toContain('only root may install plugins')
    expect((await world.fails(['plugin', 'remove', 'alien'], { uid: 1234, cwd: '/' })).stderr).toContain('only root may remove plugins')
  })
})

describe('the search path', () => {
  test('comes first; what is on it is loaded from a copy, and again when it has changed', async () => {
    const path = join(world.work(), 'path')
    mkdirSync(path)
    const directory = await build({ name: 'local', version: '0.1.0' }, join(path, 'local'))
    const env = { CEDANA_PLUGINS_LOCAL_SEARCH_PATH: `${path}:/nonexistent` }
    expect((await world.ok(['manage', 'local', '--help'], { env })).stdout).toContain('--note')
    const list = JSON.parse(
      (await world.ok(['plugin', 'list', '--offline', '-o', 'json'], { env: { ...env, CEDANA_ADDRESS: '/nonexistent' } })).stdout,
    ) as PluginView[]
    expect(list.find(({ name }) => name === 'local')).toMatchObject({ origin: 'local', version: '0.1.0', directory })

    const run = ['run', 'local', '--no-server', 'true']
    await world.ok(run, { env })
    const verbs = join(directory, 'dist/verbs.js')
    writeFileSync(verbs, readFileSync(verbs, 'utf8').replace('run: async', "run: async () => { throw new Error('changed') }, walk: async"))
    expect((await world.fails(run, { env })).stderr).toContain('plugin local failed in run: changed')

    const { stdout } = await world.ok(['plugin', 'install', 'local'], { env })
    expect(stdout).toContain('Installed plugin local (0.1.0)')
    expect(await listed('local')).toMatchObject({ origin: 'installed' })
    const both = JSON.parse(
      (await world.ok(['plugin', 'list', '--offline', '-o', 'json'], { env: { ...env, CEDANA_ADDRESS: '/nonexistent' } })).stdout,
    ) as PluginView[]
    expect(both.filter(({ name }) => name === 'local').map(({ origin, problem }) => [origin, problem === ''])).toEqual([
      ['local', true],
      ['installed', false],
    ])
  })
})

test('an install that is killed at any moment leaves the plugin of before or the new one, whole', async () => {
  const [former, next] = [await build({ name: 'alien', version: '1.0.0' }), await build({ name: 'alien', version: '2.0.0' })]
  await world.ok(['plugin', 'install', former])
  const { ms } = await world.ok(['plugin', 'install', next])
  const parts = 6
  for (let part = 1; part < parts; part++) {
    await world.ok(['plugin', 'install', former])
    const child = spawn(CEDANA, ['plugin', 'install', next], { env: world.env, stdio: 'ignore' })
    const ended = once(child, 'exit')
    await new Promise((resolve) => setTimeout(resolve, (ms * part) / parts))
    child.kill('SIGKILL')
    await ended
    await world.ok(['plugin', 'reload'])
    expect(await listed('alien')).toMatchObject({ problem: '', version: expect.stringMatching(/^[12][.]0[.]0$/) })
    await world.ok(['run', 'alien', '--no-server', 'true'])
  }
  await world.ok(['plugin', 'install', next])
  await world.ok(['plugin', 'reload'])
  expect(await listed('alien')).toMatchObject({ problem: '', version: '2.0.0' })
  expect(readdirSync(join(places(), '.store')).filter((name) => !name.startsWith('.'))).toHaveLength(1)
  expect(readdirSync(places()).filter((name) => !name.startsWith('.'))).toEqual(['alien'])
})

describe('from a tarball or npm', () => {
  const pack = (directory: string): string => {
    const file = execFileSync('npm', ['pack', '--silent', '--ignore-scripts', directory], { cwd: world.work(), encoding: 'utf8' }).trim()
    return execFileSync('sh', ['-c', `ls ${world.dir}/work/*/${file} | tail -1`], { encoding: 'utf8' }).trim()
  }
  const integrityOf = (file: string): string => `sha512-${createHash('sha512').update(readFileSync(file)).digest('base64')}`

  test('a tarball, with the integrity that was asked for', async () => {
    const tarball = pack(await build({ name: 'alien' }))
    const wrong = `sha512-${Buffer.alloc(64).toString('base64')}`
    expect((await world.fails(['plugin', 'install', tarball, '--integrity', wrong])).stderr).toContain('is not what was asked for')
    await world.ok(['plugin', 'install', tarball, '--integrity', integrityOf(tarball)])
    expect(JSON.parse(readFileSync(join(places(), 'alien/cedana-install.json'), 'utf8'))).toMatchObject({
      package: 'cedana-plugin-alien',
      integrity: integrityOf(tarball),
      from: tarball,
    })
  })

  describe('a registry', () => {
    /** npm takes its time to start. */
    const REGISTRY_MS = 60_000
    let server: Server
    let tarball: string
    let stated: string
    let contractOf = '^1.0.0'
    beforeAll(async () => {
      tarball = pack(await build({ name: 'alien', version: '2.3.4' }))
      stated = integrityOf(tarball)
      server = createServer((request, response) => {
        const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
        if (request.url === '/cedana-plugin-alien') {
          const dist = { tarball: `${base}/a.tgz`, integrity: stated }
          const name = 'cedana-plugin-alien'
          const one = { name, version: '2.3.4', dist: { ...dist, unpackedSize: 5120 }, cedana: { contract: contractOf } }
          const time = { '2.3.4': new Date(Date.now() - 3 * 86_400_000).toISOString() }
          response.end(JSON.stringify({ name, 'dist-tags': { latest: '2.3.4' }, versions: { '2.3.4': one }, time }))
        } else if (request.url === '/a.tgz') response.end(readFileSync(tarball))
        else response.writeHead(404).end('{}')
      })
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    })
    afterAll(() => server.close())
    const env = (): Record<string, string> => ({
      npm_config_registry: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
      npm_config_cache: join(world.dir, 'npm'),
      npm_config_fetch_retries: '0',
    })

    test('by name and version', async () => {
      const { stdout } = await world.ok(['plugin', 'install', 'cedana-plugin-alien@2.3.4'], { env: env() })
      expect(stdout).toContain('Installed plugin alien (2.3.4)')
      expect((await world.fails(['plugin', 'install', 'cedana-plugin-alien@9.9.9'], { env: env() })).stderr).toContain('is not available')
      const several = await world.fails(['plugin', 'install', 'no-such-package-here', 'cedana-plugin-alien'], { env: env() })
      expect(several.stderr).toContain('Plugin no-such-package-here is not available')
      expect(several.stderr).toContain('Installed 1 plugin, 1 failed')
    })

    test('says what there is: newer versions, what is not installed, and what does not fit', async () => {
      const cache = (name: string): Record<string, string> => ({ ...env(), npm_config_cache: join(world.dir, name) })
      await install({ name: 'alien', version: '2.3.3' })
      // On a busy machine npm may not be waited for.
      const listed = (row: RegExp, ...names: readonly string[]): Promise<unknown> =>
        until('it is listed so', async () => row.test((await world.ok(['plugin', 'list', ...names], { env: env() })).stdout), REGISTRY_MS)
      await listed(/^alien +3 KiB +outdated +2[.]3[.]3 +2[.]3[.]4 +3 days ago$/m)
      await listed(/^runc +.*built-in +\S+ +- +-$/m)
      await world.ok(['plugin', 'remove', 'alien'])
      const row = /^cedana-plugin-alien +5 KiB +available +- +2[.]3[.]4 +3 days ago\n\n0 installed, 1 available\n/m
      await listed(row, 'cedana-plugin-alien@2.3.4', 'no-such-package-here')
      contractOf = '^99.0.0'
      await until(
        'it does not fit',
        async () => {
          const { stdout, stderr } = await world.ok(['plugin', 'list', 'cedana-plugin-alien'], { env: cache('npm3') })
          return stdout === 'No plugins to show\n' && stderr.includes('No version for this cedana: cedana-plugin-alien')
        },
        REGISTRY_MS,
      )
      contractOf = '^1.0.0'
    }, 120_000)

    test('that is not there keeps nobody from a list', async () => {
      await install({ name: 'alien', version: '2.3.3' })
      const nobody = { npm_config_registry: 'http://127.0.0.1:9/', npm_config_cache: join(world.dir, 'npm4') }
      const { stdout, stderr } = await world.ok(['plugin', 'list'], { env: nobody })
      expect(stderr).toContain('Using local list. Failed to ask the npm registry: ')
      expect(stdout).toMatch(/^alien +3 KiB +installed +2[.]3[.]3 +- +-$/m)
    })

    test('that gives something else than it says', async () => {
      stated = `sha512-${Buffer.alloc(64).toString('base64')}`
      const fresh = { ...env(), npm_config_cache: join(world.dir, 'npm2') }
      expect((await world.fails(['plugin', 'install', 'cedana-plugin-alien'], { env: fresh })).stderr).toContain(
        'is not what the registry says it is',
      )
      expect(existsSync(join(places(), 'alien'))).toBe(false)
    })
  })

  test.each([['./absent'], ['/nonexistent/plugin.tgz'], ['no such thing']])('of %j, which is nowhere', async (spec) => {
    expect((await world.fails(['plugin', 'install', spec])).stderr).toMatch(/^Error: NotFound: .+/m)
  })

  test('criu: one that works is left alone', async () => {
    expect((await world.ok(['plugin', 'install', 'criu'])).stdout).toContain('Plugin criu is already installed')
  })
})

/**
 * `plugin install criu` and `plugin remove criu`, where there is no CRIU yet: in a mount namespace that hides the private one, from a Debian repository
 * that has packages of its files and nothing else. Whatever comes then is as on a new machine: apt, unpacking, a dump and a restore by what came of it.
 */
import { execFile, execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, test } from 'vitest'
import { CEDANA, useWorld } from '../support/world.js'

const execute = promisify(execFile)
const HOME = '/opt/cedana'
const REAL = join(HOME, 'criu')
const world = useWorld()

const architecture = execFileSync('dpkg', ['--print-architecture'], { encoding: 'utf8' }).trim()

/** A repository of these packages; each is made of a directory. */
function makeRepository(repository: string, packages: Readonly<Record<string, (root: string) => void>>): void {
  const index = Object.entries(packages).map(([name, fill]) => {
    const root = join(repository, 'work', name)
    mkdirSync(join(root, 'DEBIAN'), { recursive: true })
    fill(root)
    const control = `Package: ${name}\nVersion: 1\nArchitecture: ${architecture}\nMaintainer: a test\nDescription: a part of CRIU\n`
    writeFileSync(join(root, 'DEBIAN/control'), control)
    const file = join(repository, `${name}.deb`)
    execFileSync('dpkg-deb', ['--build', '-Znone', '--root-owner-group', root, file], { stdio: 'ignore' })
    const sum = createHash('sha256').update(readFileSync(file)).digest('hex')
    return `${control}Filename: ${name}.deb\nSize: ${statSync(file).size}\nSHA256: ${sum}\n`
  })
  const suite = join(repository, 'dists/forky')
  const list = `main/binary-${architecture}/Packages`
  mkdirSync(join(suite, `main/binary-${architecture}`), { recursive: true })
  writeFileSync(join(suite, list), index.join('\n'))
  const sum = createHash('sha256')
    .update(readFileSync(join(suite, list)))
    .digest('hex')
  const about = `Suite: forky\nCodename: forky\nComponents: main\nArchitectures: ${architecture}\n`
  writeFileSync(join(suite, 'Release'), `${about}SHA256:\n ${sum} ${statSync(join(suite, list)).size} ${list}\n`)
}

const development = (root: string): void => void mkdirSync(join(root, 'usr/include/criu'), { recursive: true })

/** Surroundings of a command: what is in `home` is what is in /opt/cedana, and packages come from `repository` alone. */
function surroundings(repository: string): { readonly home: string; run(...args: readonly string[]): Promise<string> } {
  const directory = world.work()
  const [home, sources, debian] = ['home', 'sources', 'debian'].map((name) => join(directory, name)) as [string, string, string]
  for (const path of [home, sources]) mkdirSync(path)
  const codename = /^VERSION_CODENAME=(.*)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'bookworm'
  const source = `Types: deb\nURIs: copy:${repository}\nSuites: ${codename}\nComponents: main\nTrusted: yes\n`
  writeFileSync(join(sources, 'debian.sources'), source)
  writeFileSync(
    debian,
    [
      '#!/bin/sh',
      'set -e',
      `mount --bind ${home} ${HOME}`,
      `mount --bind ${sources} /etc/apt/sources.list.d`,
      '[ ! -e /etc/apt/sources.list ] || mount --bind /dev/null /etc/apt/sources.list',
      'exec "$@"',
    ].join('\n'),
  )
  chmodSync(debian, 0o755)
  // The daemon of the world is outside of it.
  const env = { ...world.env, CEDANA_ADDRESS: '/nonexistent' }
  const run = async (...args: readonly string[]): Promise<string> => {
    const { stdout, stderr } = await execute('unshare', ['--mount', debian, CEDANA, ...args], { env }).catch((thrown: unknown) => {
      const { stderr: said } = thrown as { readonly stderr: string }
      throw new Error(said)
    })
    return stdout + stderr
  }
  return { home, run }
}

describe.skipIf(!existsSync(REAL))('plugin install criu, where the private CRIU is that of scripts/setup', () => {
  let repository: string
  beforeAll(() => {
    repository = join(world.work(), 'repository')
    const libraries = (root: string): void => {
      mkdirSync(join(root, 'usr'))
      for (const name of readdirSync(join(REAL, 'usr')))
        if (name !== 'include') execFileSync('cp', ['-a', join(REAL, 'usr', name), join(root, 'usr')])
    }
    makeRepository(repository, { criu: libraries, 'libcriu-dev': development })
  })

  test('it is there when it has dumped and restored, is left alone then, and goes', async () => {
    const { home, run } = surroundings(repository)
    expect(await run('plugin', 'list', 'criu')).toMatch(/^criu +available +- /m)
    expect(await run('plugin', 'install', 'criu')).toMatch(/Installed plugin criu \(\d+[.]\d+/)
    expect(readdirSync(home)).toEqual(['criu'])
    expect(readFileSync(join(home, 'criu/bin/criu'), 'utf8')).toContain(`${REAL}/usr/sbin/criu`)
    expect(await run('plugin', 'list', 'criu')).toMatch(/^criu +installed +\d+[.]\d+/m)
    expect(await run('plugin', 'install', 'criu')).toContain('Plugin criu is already installed')
    expect(await run('plugin', 'remove', 'criu')).toContain('Removed criu\nRemoved 1 plugin')
    expect(readdirSync(home)).toEqual([])
    await expect(run('plugin', 'remove', 'criu')).rejects.toThrow('Plugin criu is not installed')
  })

  test('one that does not work is not installed, and takes nobody’s place', async () => {
    const broken = join(world.work(), 'broken')
    makeRepository(broken, {
      criu: (root) => {
        mkdirSync(join(root, 'usr/sbin'), { recursive: true })
        mkdirSync(join(root, 'usr/lib/somewhere'), { recursive: true })
        for (const name of ['usr/sbin/criu', 'usr/lib/somewhere/ld-linux.so.2'])
          writeFileSync(join(root, name), '#!/bin/sh\nexit 1\n', { mode: 0o755 })
      },
      'libcriu-dev': development,
    })
    const { home, run } = surroundings(broken)
    mkdirSync(join(home, 'criu/bin'), { recursive: true })
    writeFileSync(join(home, 'criu/bin/criu'), '#!/bin/sh\necho Version: 1.0\nexit 1\n', { mode: 0o755 })
    await expect(run('plugin', 'install', 'criu')).rejects.toThrow(/no CRIU could be installed: .*no CRIU found that works on kernel/)
    expect(readdirSync(home)).toEqual(['criu'])
    expect(readFileSync(join(home, 'criu/bin/criu'), 'utf8')).toContain('Version: 1.0')
  })
})

/** Style is a test: types, lint, layers, generated code, and what lies at the top. */
import { execFile } from 'node:child_process'
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const tool = (name: string): string => join(root, 'node_modules', '.bin', name)

/** What a tool prints, whether it is content or not. */
async function run(program: string, args: string[]): Promise<{ code: number; output: string }> {
  try {
    const { stdout, stderr } = await promisify(execFile)(program, args, { cwd: root, maxBuffer: 64 << 20 })
    return { code: 0, output: stdout + stderr }
  } catch (failure) {
    const { code, stdout, stderr } = failure as { code: unknown; stdout?: string; stderr?: string }
    if (typeof code !== 'number') throw failure
    return { code, output: `${stdout ?? ''}${stderr ?? ''}` }
  }
}

async function files(directory: string): Promise<string[]> {
  const entries = await readdir(join(root, directory), { recursive: true, withFileTypes: true })
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name).slice(root.length))
}

const CODE = ['src', 'addon']
const ALL = [...CODE, 'test', 'bench']

describe('style', () => {
  test('types and lint', async () => {
    expect(await run(process.execPath, [join(root, 'test/style/types-and-lint.mjs')])).toEqual({ code: 0, output: '' })
  })

  test('format', async () => {
    const { output } = await run(tool('prettier'), [
      '--config',
      'test/style/prettier.json',
      '--list-different',
      ...[...ALL, 'examples'].map((directory) => `${directory}/**/*.ts`),
      '!**/gen/**',
    ])
    expect(output.trim()).toBe('')
  })

  test('format of C++', async ({ skip }) => {
    // Each major version lays some lines out in its own way: that of Debian 12 counts.
    const { stdout: version } = await promisify(execFile)('clang-format', ['--version'])
    if (!/version 14[.]/.test(version)) return skip(`it is laid out by clang-format 14, this is: ${version.trim()}`)
    const sources = (await files('addon')).filter((name) => /[.](cc|h)$/.test(name))
    const { stderr } = await promisify(execFile)('clang-format', ['--dry-run', ...sources], { cwd: root })
    expect(stderr).toBe('')
  })

  test('layers', async () => {
    const { output } = await run(tool('depcruise'), ['--config', 'test/style/deps.cjs', '--output-type', 'json', ...CODE])
    const { summary, modules } = JSON.parse(output) as {
      summary: { violations: { rule: { name: string }; from: string; to: string }[] }
      modules: { source: string }[]
    }
    expect(summary.violations.map(({ rule, from, to }) => `${rule.name}: ${from} → ${to}`)).toEqual([])
    // A cruise with a TypeScript it does not know reads nothing, and finds nothing wrong.
    const seen = new Set(modules.map(({ source }) => source))
    const written = (await Promise.all(CODE.map(files))).flat().filter((name) => name.endsWith('.ts'))
    expect(written.filter((name) => !seen.has(name))).toEqual([])
  })

  test('documentation is what the commands say', async () => {
    const scratch = await mkdtemp(join(tmpdir(), 'cedana-docs-'))
    try {
      await promisify(execFile)(process.execPath, [join(root, 'bin/cedana'), 'docs-gen', scratch])
      const made = (base: string, directory: string): Promise<string[]> => readdir(join(base, directory))
      for (const directory of ['docs/cli', 'man'])
        expect((await made(root, directory)).sort()).toEqual((await made(scratch, directory)).sort())
      for (const entry of await readdir(scratch, { recursive: true, withFileTypes: true })) {
        if (!entry.isFile()) continue
        const name = join(entry.parentPath, entry.name).slice(scratch.length + 1)
        const [committed, fresh] = await Promise.all([root, scratch].map((base) => readFile(join(base, name), 'utf8')))
        expect(committed === fresh, `${name} is not what npm run gen makes`).toBe(true)
      }
    } finally {
      await rm(scratch, { recursive: true })
    }
  })

  test('every man page is installed', async () => {
    const { man } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { readonly man: readonly string[] }
    expect(man).toEqual((await readdir(join(root, 'man'))).sort().map((name) => `man/${name}`))
  })

  test('generated code is fresh', async () => {
    const scratch = await mkdtemp(join(tmpdir(), 'cedana-gen-'))
    const places = [
      { sources: 'src/daemon/api', gen: 'src/daemon/api/gen' },
      { sources: 'src/plugins/containerd/proto', gen: 'src/plugins/containerd/gen' },
      { sources: 'src/plugins/k8s/proto', gen: 'src/plugins/k8s/gen' },
    ]
    try {
      for (const { sources, gen } of places) {
        for (const name of (await readdir(join(root, sources))).filter((one) => /[.](proto|yaml)$/.test(one)))
          await cp(join(root, sources, name), join(scratch, sources, name))
        await mkdir(join(scratch, gen), { recursive: true })
      }
      await cp(join(root, 'scripts/gen'), join(scratch, 'scripts/gen'))
      await symlink(join(root, 'node_modules'), join(scratch, 'node_modules'))
      await promisify(execFile)(join(scratch, 'scripts/gen'))
      for (const { gen } of places) {
        const generated = (await readdir(join(scratch, gen), { recursive: true })).filter((name) => name.endsWith('.ts')).sort()
        expect((await files(gen)).map((name) => name.slice(gen.length + 1)).sort()).toEqual(generated)
        for (const name of generated) {
          const committed = await readFile(join(root, gen, name), 'utf8')
          expect(committed === (await readFile(join(scratch, gen, name), 'utf8')), `${name} is not what scripts/gen makes`).toBe(true)
        }
      }
    } finally {
      await rm(scratch, { recursive: true })
    }
  })

  test('systemd unit', async ({ skip }) => {
    const version = await promisify(execFile)('systemd-analyze', ['--version']).catch(() => undefined)
    if (version === undefined) return skip('systemd-analyze is not installed')
    const scratch = await mkdtemp(join(tmpdir(), 'cedana-unit-'))
    try {
      // The program need not be installed to judge the unit.
      const unit = await readFile(join(root, 'systemd/cedana.service'), 'utf8')
      await writeFile(join(scratch, 'cedana.service'), unit.replace('ExecStart=', `ExecStart=${root}bin/`))
      const { stderr } = await promisify(execFile)('systemd-analyze', ['verify', '--man=no', join(scratch, 'cedana.service')])
      expect(stderr.split('\n').filter((line) => line.includes('cedana.service'))).toEqual([])
    } finally {
      await rm(scratch, { recursive: true })
    }
  })

  test('no stray file at the top', async () => {
    const { stdout } = await promisify(execFile)('git', ['ls-files', '--cached', '--others', '--exclude-standard'], { cwd: root })
    const top = new Set(
      stdout
        .trim()
        .split('\n')
        .map((name) => name.split('/')[0]),
    )
    const known = [
      '.ci',
      '.clang-format',
      '.editorconfig',
      '.gitignore',
      'CMakeLists.txt',
      'LICENSE',
      'README.md',
      'addon',
      'bench',
      'bin',
      'examples',
    ]
    known.push('docs', 'man', 'package-lock.json', 'package.json', 'scripts', 'src', 'systemd', 'test', 'tsconfig.json')
    expect([...top].filter((name) => name !== undefined && !known.includes(name))).toEqual([])
  })

  test('names: kebab-case, and none that says nothing', async () => {
    const names = (await Promise.all(ALL.map(files))).flat().filter((name) => !name.includes('/gen/') && /[.](ts|cc|h)$/.test(name))
    expect(names.filter((name) => !/^[a-z0-9./-]+$/.test(name))).toEqual([])
    expect(names.filter((name) => /[/](utils|helpers|common|manager|misc)[./]/.test(name))).toEqual([])
  })
})

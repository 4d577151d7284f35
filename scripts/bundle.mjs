// Builds dist/: the program as one CommonJS file, the files that its libraries read at run time, V8's code cache, and
// the programs of the child processes: the one that calls the CUDA driver, the one that runs a plugin, and the one that
// brings up a container.
//
// Two things that only modules have are kept: `import.meta.url` of a file of ours is what it is in the source tree, so
// new URL('../x', import.meta.url) finds the same file of the package, bundled or not; and import() of a name known only
// at run time is a real one, so that it takes ES modules.
import { build } from 'esbuild'
import { cpSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { dropCodeCache, makeCodeCache } from './code-cache.mjs'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const dist = join(root, 'dist')

/** Libraries that read .proto files beside their code, by __dirname: the files are copied, the directory is told. */
const PROTO_READERS = /[/]node_modules[/](@grpc[/]reflection|grpc-health-check)([/]build.*)[/][^/]+[.]js$/

/** commander can run sub-commands that are programs of their own; none of ours is, and loading this takes milliseconds. */
const UNUSED = "require('node:child_process')"

const asModules = {
  name: 'as-modules',
  setup(builder) {
    builder.onLoad({ filter: /[/](src|addon)[/].*[.]ts$/ }, ({ path }) => {
      if (path.includes('/node_modules/')) return undefined
      const place = JSON.stringify(relative(root, path))
      const text = readFileSync(path, 'utf8')
      const contents = text.replaceAll('import.meta.url', `__sourceUrl(${place})`).replace(/\bimport\((?!['"])/g, '__import(')
      return { contents, loader: 'ts' }
    })
    builder.onLoad({ filter: /[/]node_modules[/]commander[/]lib[/]command[.]js$/ }, ({ path }) => {
      const text = readFileSync(path, 'utf8')
      if (!text.includes(UNUSED)) throw new Error(`${path}: no ${UNUSED}`)
      return { contents: text.replace(UNUSED, '{}'), loader: 'js' }
    })
    // zod's messages in 50 languages, of which it takes the English ones elsewhere: a tenth of the program, set up at each start.
    builder.onLoad({ filter: /[/]node_modules[/]zod[/]v4[/]locales[/]index[.]js$/ }, () => ({ contents: 'export {}', loader: 'js' }))
    builder.onLoad({ filter: PROTO_READERS }, ({ path }) => {
      const text = readFileSync(path, 'utf8')
      const [, library, directory] = PROTO_READERS.exec(path)
      if (!text.includes('__dirname')) return undefined
      const home = path.slice(0, path.lastIndexOf(`${directory}/`))
      for (const name of readdirSync(home, { recursive: true })) {
        if (/(^|[/])proto[/](grpc|health)[/].*[.]proto$/.test(name)) cpSync(join(home, name), join(dist, 'lib', library, name))
      }
      return { contents: text.replaceAll('__dirname', `(__dirname + ${JSON.stringify(`/lib/${library}${directory}`)})`), loader: 'js' }
    })
  },
}

const common = {
  absWorkingDir: root,
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'cjs',
  external: ['better-sqlite3', '*.node'],
  plugins: [asModules],
  minifySyntax: true,
  legalComments: 'external',
  logLevel: 'warning',
  write: false,
}
const failed = () => process.exit(1) // esbuild has said why

// Programs that are run from a code cache.
const cached = await build({
  ...common,
  entryPoints: { cedana: 'src/cli/main.ts', launcher: 'src/daemon/launcher.ts' },
  outdir: 'dist',
  outExtension: { '.js': '.cjs' },
  supported: { 'dynamic-import': false }, // a script with a code cache cannot import(); what is left outside is required
  // One function, called by bin/run.js with what Node gives to a CommonJS module.
  banner: {
    js: `(function (require, __import, module, exports, __filename, __dirname) {
const __sourceUrl = (path) => require('node:url').pathToFileURL(__dirname + '/../' + path).href`,
  },
  footer: { js: '})' },
  sourcemap: 'external',
}).catch(failed)
const child = await build({
  ...common,
  entryPoints: ['src/daemon/host/cuda-child.ts'],
  outfile: 'dist/cuda-child.cjs',
  banner: { js: "const __sourceUrl = (path) => require('node:url').pathToFileURL(__dirname + '/../' + path).href" },
}).catch(failed)
const worker = await build({
  ...common,
  entryPoints: ['src/daemon/plugins/worker-main.ts'],
  outfile: 'dist/plugin-worker.cjs',
  banner: {
    js: `const __import = (name) => import(name)
const __sourceUrl = (path) => require('node:url').pathToFileURL(__dirname + '/../' + path).href`,
  },
}).catch(failed)

// cedana/plugin and cedana/plugin/testing, for authors of plugins: modules, which share what is the same in both.
const author = await build({
  ...common,
  entryPoints: { plugin: 'src/plugins/contract/index.ts', testing: 'src/testing.ts' },
  outdir: 'dist/author',
  format: 'esm',
  splitting: true,
  banner: {
    js: `import { createRequire as __createRequire } from 'node:module'
const require = __createRequire(import.meta.url), __import = (name) => import(name)
const __sourceUrl = (path) => new URL('../../' + path, import.meta.url).href`,
  },
}).catch(failed)
rmSync(join(dist, 'author'), { recursive: true, force: true })
mkdirSync(join(dist, 'author'), { recursive: true })

// A command that starts meanwhile finds the old program or the new one, and never the cache of the other.
mkdirSync(dist, { recursive: true })
dropCodeCache(root)
for (const { path, contents } of [...cached.outputFiles, ...child.outputFiles, ...worker.outputFiles, ...author.outputFiles]) {
  writeFileSync(`${path}.new`, contents)
  renameSync(`${path}.new`, path)
}
await makeCodeCache(root)

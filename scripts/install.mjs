// npm's install step of the package: the native parts, where the package brought none, and the code cache for this Node.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const require = createRequire(import.meta.url)
const release = join(root, 'build', 'Release')

/** Built, and fit for this machine: its libraries are there and this Node takes it. */
function nativeWorks() {
  try {
    require(join(release, 'cedana.node'))
    return existsSync(join(release, 'cedana-shim'))
  } catch {
    return false
  }
}

const works = (command, ...args) => spawnSync(command, args, { stdio: 'ignore' }).status === 0
const criuPrefix = process.env.CEDANA_CRIU_PREFIX || '/opt/cedana/criu'

const missing = () =>
  [
    [works('cmake', '--version'), 'cmake'],
    [works('c++', '--version'), 'a C++ compiler'],
    [works('pkg-config', '--version'), 'pkg-config'],
    ...['liblz4', 'libzstd', 'zlib', 'libxxhash', 'libprotobuf-c'].map((name) => [
      works('pkg-config', '--exists', name),
      `${name} (headers)`,
    ]),
    [works('pkg-config', '--exists', 'criu') || existsSync(join(criuPrefix, 'usr/include/criu/criu.h')), 'libcriu (headers)'],
  ].flatMap(([there, name]) => (there ? [] : [name]))

if (!nativeWorks()) {
  const lacking = missing()
  if (lacking.length > 0) {
    console.error(`cedana: cannot build its native part; missing: ${lacking.join(', ')}.

On Debian 12 or newer, as root, let its own set-up bring them:

    npm install -g --ignore-scripts PACKAGE          (as you did now, plus --ignore-scripts)
    "$(npm root -g)/cedana/scripts/setup"

In a checkout: scripts/setup`)
    process.exit(1)
  }
  const { status } = spawnSync(process.execPath, [require.resolve('cmake-js/bin/cmake-js'), 'compile', '--log-level', 'warn'], {
    cwd: root,
    stdio: 'inherit',
  })
  if (status !== 0 || !nativeWorks()) {
    console.error('cedana: the native part did not build, see above')
    process.exit(1)
  }
}

// A checkout makes its bundle later; a package was packed with one.
if (existsSync(join(root, 'dist', 'cedana.cjs'))) {
  const { makeCodeCache } = await import('./code-cache.mjs')
  await makeCodeCache(root)
}

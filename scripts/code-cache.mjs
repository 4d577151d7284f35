// V8's code cache for dist/cedana.cjs: what this Node compiled while it ran some usual commands. Written beside the
// bundle; a Node it does not fit ignores it (see bin/cedana).
import { execFileSync } from 'node:child_process'
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Script } from 'node:vm'

/** Each adds what it needs to the cache of those before. The address leads nowhere: no daemon is disturbed. */
const COMMANDS = [['--version'], ['--help'], ['ps']]
const NOWHERE = { CEDANA_PROTOCOL: 'unix', CEDANA_ADDRESS: '/nonexistent/cedana.sock' }

const cachePath = (root) => join(root, 'dist', 'cedana.cache')

/** V8 tells a stale cache by little more than the length of the source: it must be gone before the source changes. */
export const dropCodeCache = (root) => rmSync(cachePath(root), { force: true })

export function makeCodeCache(root) {
  const fresh = `${cachePath(root)}.new`
  rmSync(fresh, { force: true })
  for (const command of COMMANDS) {
    try {
      execFileSync(process.execPath, [fileURLToPath(import.meta.url), root, ...command], {
        env: { ...process.env, ...NOWHERE },
        stdio: ['ignore', 'ignore', 'inherit'],
        timeout: 30_000,
      })
    } catch (failure) {
      throw new Error(`code cache: cedana ${command.join(' ')} did not run to its end`, { cause: failure })
    }
  }
  renameSync(fresh, cachePath(root))
}

/** One command in this process; whatever its outcome, what it compiled is kept. */
function record(root, command) {
  const file = join(root, 'dist', 'cedana.cjs')
  const cache = `${cachePath(root)}.new`
  let cachedData
  try {
    cachedData = readFileSync(cache)
  } catch {
    // the first command
  }
  const script = new Script(readFileSync(file, 'latin1'), { filename: file, cachedData })
  process.on('exit', () => {
    writeFileSync(cache, script.createCachedData())
    process.exitCode = 0
  })
  process.stderr.write = () => true
  process.argv = [process.execPath, join(root, 'bin', 'cedana'), ...command]
  const module = { exports: {} }
  script.runInThisContext()(createRequire(file), (name) => import(name), module, module.exports, file, dirname(file))
}

if (process.argv[1] === fileURLToPath(import.meta.url)) record(process.argv[2], process.argv.slice(3))

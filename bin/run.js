'use strict'
// Runs a program of dist/ from V8's code cache, made by scripts/code-cache.mjs: compiling would take longer than most of what they do.
const { readFileSync } = require('node:fs')
const { createRequire } = require('node:module')
const { dirname, join } = require('node:path')
const { Script } = require('node:vm')

const dist = join(dirname(__dirname), 'dist')

function read(path, encoding) {
  try {
    return readFileSync(path, encoding)
  } catch {
    return undefined
  }
}

exports.run = (name) => {
  const file = join(dist, `${name}.cjs`)
  const source = read(file, 'latin1') // the bundle is ASCII: nothing to decode
  if (source === undefined) {
    process.stderr.write(`cedana: cannot read ${file}: make it with ${join(dirname(__dirname), 'scripts', 'setup')}\n`)
    process.exit(1)
  }
  const script = new Script(source, {
    filename: file,
    cachedData: read(join(dist, `${name}.cache`)), // ignored by V8 when it does not fit
  })
  script.runInThisContext()(createRequire(file), (name) => import(name), module, exports, file, dist)
}

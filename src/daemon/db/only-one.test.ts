import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { beTheOnlyOne } from './only-one.js'

let directory: string
beforeEach(() => (directory = mkdtempSync(join(tmpdir(), 'cedana-one-'))))
afterEach(() => {
  rmSync(directory, { recursive: true })
})

/** Another process that takes the lock and keeps it. */
async function holder(file: string) {
  const library = createRequire(import.meta.url).resolve('better-sqlite3')
  const take = `new (require(${JSON.stringify(library)}))(${JSON.stringify(file)}).exec('BEGIN EXCLUSIVE')`
  const script = `${take}; console.log('held'); setInterval(() => 0, 1e6)`
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  return child
}

it('is held until it is released', async () => {
  const file = join(directory, 'lock')
  {
    using _ = await beTheOnlyOne(file, 0)
    const message = `another daemon is running: it holds ${file}`
    await expect(beTheOnlyOne(file, 0)).rejects.toMatchObject({ code: 'HOST_UNFIT', message })
  }
  using _ = await beTheOnlyOne(file, 0)
})

it('ends with its holder, even when that is killed; who waits gets it then', async () => {
  const file = join(directory, 'lock')
  const child = await holder(file)
  await expect(beTheOnlyOne(file, 0)).rejects.toMatchObject({ code: 'HOST_UNFIT' })
  const next = beTheOnlyOne(file, 10_000)
  child.kill('SIGKILL')
  using _ = await next
})

it('is nobody else’s to lock: with reading it goes locking', async () => {
  const file = join(directory, 'lock')
  writeFileSync(file, '', { mode: 0o644 })
  using _ = await beTheOnlyOne(file, 0)
  expect(statSync(file).mode & 0o777).toBe(0o600)
})

it('says what is wrong with the place', async () => {
  await expect(beTheOnlyOne(join(directory, 'none', 'lock'), 0)).rejects.toMatchObject({ code: 'HOST_UNFIT' })
})

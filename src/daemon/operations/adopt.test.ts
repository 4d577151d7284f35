/** Launches that were under way when the daemon before this one died. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { until } from '../../../test/support/wait.js'
import { IN_MEMORY, openDatabase } from '../db/database.js'
import * as processes from '../host/processes.js'
import { launchShim, type LaunchedShim } from '../host/shim.js'
import { JobLocks } from '../jobs/lock.js'
import { JobTable } from '../jobs/table.js'
import { Registry } from '../../plugins/registry.js'
import { adoptAll } from './adopt.js'
import type { Environment } from './environment.js'
import { newJob } from './run.js'

const scratch = mkdtempSync('/tmp/cedana-adopt-test-')
const log = { debug: () => undefined, info: () => undefined, warn: () => undefined }
afterAll(() => {
  rmSync(scratch, { recursive: true, force: true })
})

interface UnderWay {
  readonly env: Environment
  readonly launched: Promise<LaunchedShim>
  readonly listens: Promise<unknown>
}

/** A daemon's database with one job that is only being started, and the launch of it; `script` tells the PID of what it leaves in $PID_FILE. */
function underWay(name: string, script: string): UnderWay {
  const env = {
    config: { run_dir: join(scratch, name) },
    log,
    jobs: new JobTable(openDatabase(IN_MEMORY).jobs, 'host', log),
    checkpoints: { ofJob: () => [] },
    runtimes: new Registry([]),
    locks: new JobLocks(),
    self: () => processes.identify(process.pid),
  } as unknown as Environment
  const directory = join(scratch, name, 'jobs', 'one')
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  env.jobs.create(newJob(env, { jid: 'one', type: 'runc', state: 'starting', owner: { uid: 0, gid: 0, groups: [] }, directory }))
  const pidFile = join(directory, 'pid')
  const launched = launchShim({
    shimPath: resolve('build/Release/cedana-shim'),
    directory,
    stdio: 'none',
    argv: ['sh', '-c', script],
    environment: { PATH: '/usr/bin:/bin', PID_FILE: pidFile },
    launcher: { pidFile },
  })
  launched.catch(() => undefined)
  const listens = until('its shim listens', () => existsSync(join(directory, 'shim.sock')))
  return { env, launched, listens }
}

it.concurrent('what the launcher leaves later is adopted', async () => {
  const { env, launched, listens } = underWay('later', 'sleep 1; sleep 60 & echo $! > $PID_FILE')
  await listens
  await adoptAll(env)
  const { pid, startTicks, done } = await launched
  expect(env.jobs.get('one')).toMatchObject({ state: 'running', pid, startTicks })
  process.kill(pid, 'SIGTERM')
  expect(await env.jobs.ended('one')).toMatchObject({ state: 'ended', endReason: 'exited', exit: { signal: 15 } })
  await done
})

it.concurrent('a launcher that fails later leaves no job', async () => {
  const { env, launched, listens } = underWay('failed', 'sleep 1; exit 3')
  await listens
  await adoptAll(env)
  expect(env.jobs.find('one')).toBeUndefined()
  await expect(launched).rejects.toMatchObject({ detail: { exitCode: 3 } })
})

it.concurrent('what has ended before anybody looked is known', async () => {
  const { env, launched } = underWay('ended', '(sleep 0.3; exit 7) & echo $! > $PID_FILE')
  await (
    await launched
  ).done
  await adoptAll(env)
  expect(env.jobs.get('one')).toMatchObject({ state: 'ended', endReason: 'exited', exit: { code: 7 } })
})

it.concurrent('a launcher that takes its time does not keep the daemon from starting', async () => {
  const go = join(scratch, 'go')
  const { env, launched, listens } = underWay('slow', `until [ -e ${go} ]; do sleep 0.1; done; sleep 60 & echo $! > $PID_FILE`)
  await listens
  await adoptAll(env)
  expect(env.jobs.get('one')).toMatchObject({ state: 'starting' })
  expect(() => env.locks.take('one', 'delete')).toThrow('job one is busy: run is running')
  writeFileSync(go, '')
  const { pid, shim, done } = await launched
  expect(readFileSync(`/proc/${shim.pid}/comm`, 'utf8')).toBe('cedana-shim\n')
  await until('it is adopted', () => env.jobs.get('one').state === 'running')
  expect(env.jobs.get('one').pid).toBe(pid)
  env.locks.take('one', 'delete')[Symbol.dispose]()
  process.kill(pid, 'SIGKILL')
  await env.jobs.ended('one')
  await done
})

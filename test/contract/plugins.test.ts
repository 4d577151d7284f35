/** Every plugin that ships passes the suite of its kind. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { afterAll, describe, expect, test } from 'vitest'
import { hostFor } from '../../src/daemon/operations/host.js'
import { builtins } from '../../src/plugins/index.js'
import { Registry } from '../../src/plugins/registry.js'
import { type RuntimeWorld, runtimeContract } from './runtime.js'

const registry = new Registry(builtins)
const directory = mkdtempSync(join(tmpdir(), 'cedana-contract-'))
afterAll(() => {
  rmSync(directory, { recursive: true })
})
const host = hostFor({ runtimes: registry, log: pino({ level: 'silent' }), config: { run_dir: directory } }, new AbortController().signal)

const states = async (target: Parameters<RuntimeWorld['states']>[0]): Promise<readonly string[]> =>
  (await host.inspect(target)).processes.map((facts) => facts.state)

/** A shell with a child: the smallest tree. */
function processWorld(): RuntimeWorld {
  return {
    host,
    states,
    run: { path: '/bin/true', args: [] },
    absent: { options: { pid: 2 ** 22 + 1 }, code: 'NO_SUCH_PROCESS' },
    start: async () => {
      const child = spawn('/bin/sh', ['-c', 'sleep 100 & echo ready; wait'], { stdio: ['ignore', 'pipe', 'ignore'], detached: true })
      await once(child.stdout, 'data')
      const target = await host.identify(child.pid ?? 0)
      return {
        target,
        options: { pid: target.pid },
        stop: async () => {
          const ended = once(child, 'exit')
          process.kill(-Number(target.pid), 'SIGKILL')
          await ended
        },
      }
    },
  }
}

const WORLDS: Readonly<Record<string, () => RuntimeWorld>> = { process: processWorld }

for (const manifest of builtins)
  runtimeContract(
    manifest,
    WORLDS[manifest.name] ??
      (() => {
        throw new Error(`no world for ${manifest.name}`)
      }),
  )

describe('the registry', () => {
  test('refuses two plugins of one name', () => {
    expect(() => new Registry([...builtins, ...builtins])).toThrow('two runtime plugins named')
  })
  test('names what is there when a plugin is not', () => {
    expect(() => registry.manifest('kata')).toThrow('no runtime plugin named kata')
  })
  test('refuses a verb that is not claimed', async () => {
    await expect(registry.verb('process', 'upcoming')).rejects.toMatchObject({ code: 'VERB_UNSUPPORTED' })
  })
})

/** Every plugin that ships passes the suite of its kind. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import type { Target } from '../../src/plugins/contract/job.js'
import { loadBuiltins } from '../../src/plugins/index.js'
import { Registry } from '../../src/plugins/registry.js'
import { useContainerd } from '../support/containerd.js'
import { useContainers } from '../support/containers.js'
import { useKubelet } from '../support/cri.js'
import { until } from '../support/wait.js'
import { type RuntimeWorld, runtimeCases, testHost } from '../../src/testing.js'

const builtins = await loadBuiltins()
const registry = new Registry(builtins)
const directory = mkdtempSync(join(tmpdir(), 'cedana-contract-'))
const left: unknown[] = []
// Registered first, so called last.
afterAll(() => {
  rmSync(directory, { recursive: true })
  expect(left).toEqual([])
})
const id = basename(directory).slice(-6)
const surroundings = { dir: directory, id, mark: `CEDANA_TEST=${id}`, blame: (failure: unknown) => void left.push(failure) }
const containers = useContainers(surroundings)
const containerd = useContainerd(surroundings)
const kubelet = useKubelet(surroundings)
const { host, close } = testHost()
afterAll(close)

const states = async (target: Target): Promise<readonly string[]> => (await host.inspect(target)).processes.map((facts) => facts.state)

/** A shell with a child: the smallest tree. */
function processWorld(): RuntimeWorld {
  return {
    host,
    run: { path: '/bin/true', args: [] },
    absent: { options: { pid: 2 ** 22 + 1 }, code: 'NO_SUCH_PROCESS' },
    start: async () => {
      const child = spawn('/bin/sh', ['-c', 'sleep 100 & echo ready; wait'], { stdio: ['ignore', 'pipe', 'ignore'], detached: true })
      await once(child.stdout, 'data')
      const target = await host.identify(child.pid ?? 0)
      return {
        target,
        options: { pid: target.pid },
        query: { pids: [target.pid] },
        stop: async () => {
          const ended = once(child, 'exit')
          process.kill(-Number(target.pid), 'SIGKILL')
          await ended
        },
      }
    },
  }
}

/** A container of busybox: a shell with a child. */
function runcWorld(): RuntimeWorld {
  const root = containers.root
  return {
    host,
    run: { id: 'contract', root, bundle: containers.bundle(containers.id('run')) },
    absent: { options: { id: 'absent', root }, code: 'NO_SUCH_CONTAINER' },
    start: async () => {
      const container = containers.container('live', { args: ['sh', '-c', 'sleep 100 & wait'] })
      const target = await host.identify(await container.run())
      await until('the shell has a child', async () => (await states(target)).length > 1)
      return { target, options: { id: container.id, root }, query: { root }, stop: () => container.remove() }
    },
  }
}

/** The same of containerd. */
function containerdWorld(): RuntimeWorld {
  const { address, namespace } = containerd
  return {
    host,
    run: { image: 'test.local/none:1', args: ['sh'], address, namespace },
    absent: { options: { id: 'absent', address, namespace }, code: 'NO_SUCH_CONTAINER' },
    start: async () => {
      const name = containerd.id('live')
      const pid = await containerd.run(await containerd.busybox(), name, ['sh', '-c', 'sleep 100 & wait'])
      const target = await host.identify(pid)
      await until('the shell has a child', async () => (await states(target)).length > 1)
      return { target, options: { id: name, address, namespace }, query: { address, namespace }, stop: () => containerd.remove(name) }
    },
  }
}

/** The same of a pod. */
function k8sWorld(): RuntimeWorld {
  const { address } = kubelet.containerd
  return {
    host,
    run: {},
    absent: { options: { id: 'absent', address }, code: 'NO_SUCH_CONTAINER' },
    start: async () => {
      const pod = await kubelet.pod('live')
      const { id: name } = await pod.container('live', ['sh', '-c', 'sleep 100 & wait'])
      const target = await host.identify(await kubelet.pid(name))
      await until('the shell has a child', async () => (await states(target)).length > 1)
      return { target, options: { id: name, address }, query: { address }, stop: () => pod.remove() }
    },
  }
}

const WORLDS: Readonly<Record<string, () => RuntimeWorld>> = {
  process: processWorld,
  runc: runcWorld,
  containerd: containerdWorld,
  k8s: k8sWorld,
}

describe.each(builtins)('runtime $name', (manifest) => {
  const world = WORLDS[manifest.name]
  if (world === undefined) throw new Error(`no world for ${manifest.name}`)
  for (const { name, run } of runtimeCases(manifest, world)) test(name, run)
})

/** Where each claimed feature is seen to hold: file below test/e2e, and words of the title. */
const SHOWN: Readonly<Record<string, readonly [string, string]>> = {
  'process tcp-established': ['workloads.process.test.ts', 'redis-server with data and a connected client'],
  'process stream': ['streams.process.test.ts', 'and the memory comes back'],
  'process gpu': ['gpu.process.test.ts', 'is dumped and restored with what was on the device'],
  'runc tcp-established': ['restore.runc.test.ts', 'an established TCP connection goes on'],
  'runc stream': ['restore.runc.test.ts', 'in several streams'],
  'runc gpu': ['gpu.runc.test.ts', 'a container with devices by %s is dumped and restored'],
  'containerd tcp-established': ['workloads.containerd.test.ts', 'an established TCP connection goes on'],
  'containerd stream': ['workloads.containerd.test.ts', 'redis has its data, in memory and on disk'],
  'containerd rootfs': ['restore.containerd.test.ts', 'is made again, with its writable layer'],
  'containerd gpu': ['gpu.containerd.test.ts', 'a container is run, dumped and restored'],
  'k8s stream': ['containers.k8s.test.ts', 'ended by its dump, it comes back'],
  'k8s rootfs': ['containers.k8s.test.ts', 'dumped alive and exported'],
}
test('every feature that is claimed has a test that shows it, and no other', () => {
  const claimed = builtins.flatMap(({ name, features }) => Object.keys(features).map((feature) => `${name} ${feature}`))
  expect(Object.keys(SHOWN).sort()).toEqual(claimed.sort())
  for (const [file, title] of Object.values(SHOWN))
    expect(readFileSync(new URL(`../e2e/${file}`, import.meta.url), 'utf8')).toContain(title)
})

describe('the registry', () => {
  test('refuses two plugins of one name', () => {
    expect(() => new Registry([...builtins, ...builtins])).toThrow('two runtime plugins named')
  })
  test('names what is there when a plugin is not', async () => {
    await expect(registry.verb('kata', 'dump')).rejects.toThrow('no runtime plugin named kata')
  })
  test('refuses a verb that is not claimed', async () => {
    await expect(registry.verb('process', 'upcoming')).rejects.toMatchObject({ code: 'VERB_UNSUPPORTED' })
  })
})

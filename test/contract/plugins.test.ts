/** Every plugin that ships passes the suite of its kind. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import pino from 'pino'
import { afterAll, describe, expect, test } from 'vitest'
import { CudaChild } from '../../src/daemon/host/cuda.js'
import { hostFor } from '../../src/daemon/operations/host.js'
import { builtins } from '../../src/plugins/index.js'
import { Registry } from '../../src/plugins/registry.js'
import { useContainerd } from '../support/containerd.js'
import { useContainers } from '../support/containers.js'
import { useKubelet } from '../support/cri.js'
import { until } from '../support/wait.js'
import { type RuntimeWorld, runtimeContract } from './runtime.js'

const registry = new Registry(builtins)
const directory = mkdtempSync(join(tmpdir(), 'cedana-contract-'))
// Registered first, so called last.
afterAll(() => {
  rmSync(directory, { recursive: true })
})
const id = basename(directory).slice(-6)
const surroundings = { dir: directory, id, mark: `CEDANA_TEST=${id}` }
const containers = useContainers(surroundings)
const containerd = useContainerd(surroundings)
const kubelet = useKubelet(surroundings)
const cuda = new CudaChild({ library: '/nowhere/libcuda.so.1', management: '/nowhere/libnvidia-ml.so.1', callTimeoutMs: 10_000 })
const host = hostFor(
  { runtimes: registry, log: pino({ level: 'silent' }), cuda, config: { run_dir: directory } },
  new AbortController().signal,
)

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

/** A container of busybox: a shell with a child. */
function runcWorld(): RuntimeWorld {
  const root = containers.root
  return {
    host,
    states,
    run: { id: 'contract', root, bundle: containers.bundle(containers.id('run')) },
    absent: { options: { id: 'absent', root }, code: 'NO_SUCH_CONTAINER' },
    start: async () => {
      const container = containers.container('live', { args: ['sh', '-c', 'sleep 100 & wait'] })
      const target = await host.identify(await container.run())
      await until('the shell has a child', async () => (await states(target)).length > 1)
      return { target, options: { id: container.id, root }, stop: () => container.remove() }
    },
  }
}

/** The same of containerd. */
function containerdWorld(): RuntimeWorld {
  const { address, namespace } = containerd
  return {
    host,
    states,
    run: { image: 'test.local/none:1', args: ['sh'], address, namespace },
    absent: { options: { id: 'absent', address, namespace }, code: 'NO_SUCH_CONTAINER' },
    start: async () => {
      const name = containerd.id('live')
      const pid = await containerd.run(await containerd.busybox(), name, ['sh', '-c', 'sleep 100 & wait'])
      const target = await host.identify(pid)
      await until('the shell has a child', async () => (await states(target)).length > 1)
      return { target, options: { id: name, address, namespace }, stop: () => containerd.remove(name) }
    },
  }
}

/** The same of a pod. */
function k8sWorld(): RuntimeWorld {
  const { address } = kubelet.containerd
  return {
    host,
    states,
    run: {},
    absent: { options: { id: 'absent', address }, code: 'NO_SUCH_CONTAINER' },
    start: async () => {
      const pod = await kubelet.pod('live')
      const { id: name } = await pod.container('live', ['sh', '-c', 'sleep 100 & wait'])
      const target = await host.identify(await kubelet.pid(name))
      await until('the shell has a child', async () => (await states(target)).length > 1)
      return { target, options: { id: name, address }, stop: () => pod.remove() }
    },
  }
}

const WORLDS: Readonly<Record<string, () => RuntimeWorld>> = {
  process: processWorld,
  runc: runcWorld,
  containerd: containerdWorld,
  k8s: k8sWorld,
}

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
  test('names what is there when a plugin is not', async () => {
    await expect(registry.verb('kata', 'dump')).rejects.toThrow('no runtime plugin named kata')
  })
  test('refuses a verb that is not claimed', async () => {
    await expect(registry.verb('process', 'upcoming')).rejects.toMatchObject({ code: 'VERB_UNSUPPORTED' })
  })
})

/**
 * What a kubelet does, with a real containerd and its CRI: pods, and containers in them. Their network namespaces are made by a CNI plugin that leaves
 * them as they are. At the end all pods are removed, and what is left is said by the containerd.
 */
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { credentials, type GrpcObject, loadPackageDefinition, type ServiceClientConstructor } from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'
import { afterAll, beforeAll } from 'vitest'
import { type ContainerdOptions, PAUSE, TestContainerd, type Surroundings } from './containerd.js'
import { criuPath } from './plain-criu.js'
import { until } from './wait.js'

const CNI_PLUGIN = `#!/bin/sh
cat >/dev/null
case "$CNI_COMMAND" in
VERSION) echo '{"cniVersion":"0.3.1","supportedVersions":["0.3.1"]}' ;;
ADD) nsenter --net="$CNI_NETNS" ip link set lo up
  echo '{"cniVersion":"0.3.1","ips":[{"version":"4","address":"10.99.0.2/24"}]}' ;;
esac
`

export interface Pod {
  readonly id: string
  readonly name: string
  /** A running container, of busybox unless another image is named. */
  container(name: string, args: readonly string[], image?: string): Promise<PodContainer>
  remove(): Promise<void>
}
export interface PodContainer {
  readonly id: string
  /** What it has written, as a kubelet keeps it. */
  output(): string
  /** As a kubelet has one made of it: an archive. It runs on. */
  checkpoint(location: string): Promise<unknown>
}

type Call = (request: object, done: (error: Error | null, response: Record<string, string>) => void) => void

interface KubeletOptions extends Pick<ContainerdOptions, 'programs'> {
  /** Of several in one world. */
  readonly name?: string
}

export class Kubelet {
  readonly containerd: TestContainerd
  readonly #pods = new Set<Pod>()
  #call: (method: string, request: object) => Promise<Record<string, string>> = () => Promise.reject(new Error('not open'))
  #closeClient = (): void => undefined
  #image = ''
  #count = 0

  constructor(
    private readonly world: Surroundings,
    { name = 'cri', ...options }: KubeletOptions = {},
  ) {
    this.containerd = new TestContainerd(world, { ...options, cri: true, path: dirname(criuPath()) }, name)
  }

  async open(): Promise<void> {
    const { cni } = this.containerd
    for (const name of ['bin', 'conf']) mkdirSync(join(cni, name), { recursive: true })
    for (const name of ['none', 'loopback']) {
      writeFileSync(join(cni, 'bin', name), CNI_PLUGIN)
      chmodSync(join(cni, 'bin', name), 0o755)
    }
    writeFileSync(join(cni, 'conf/10-none.conflist'), JSON.stringify({ cniVersion: '0.3.1', name: 'none', plugins: [{ type: 'none' }] }))
    await this.containerd.open()
    this.#image = await this.containerd.busybox()
    // The first process of a PID namespace that a pod shares: it reaps.
    const pause = { Entrypoint: ['sh', '-c', 'while :; do sleep 0.1; done'], Cmd: [] }
    await this.containerd.ok('images', 'tag', await this.containerd.busybox(pause), PAUSE)
    for (const image of [this.#image, PAUSE]) await this.knows(image)
    this.#connect()
  }

  /** The CRI hears a moment later of what was imported. */
  async knows(image: string): Promise<void> {
    const row = (): Promise<string> => this.containerd.ok('images', 'ls', `name==${image}`)
    await until(`the CRI knows ${image}`, async () => (await row()).includes('io.cri-containerd.image=managed'))
  }

  /** Name of the image of busybox. */
  get image(): string {
    return this.#image
  }

  #connect(): void {
    const { runtime } = loadPackageDefinition(loadSync(join(import.meta.dirname, 'cri.proto'))) as { runtime: { v1: GrpcObject } }
    const Service = runtime.v1['RuntimeService'] as ServiceClientConstructor
    const client = new Service(`unix:${this.containerd.address}`, credentials.createInsecure())
    this.#closeClient = () => {
      client.close()
    }
    this.#call = (method, request) =>
      new Promise((resolve, reject) => {
        const call = (client[method] as Call).bind(client)
        call(request, (error, response) => {
          if (error) reject(new Error(`${method}: ${error.message}`))
          else resolve(response)
        })
      })
  }

  /** `pid: 'pod'`: its containers share the PID namespace of the sandbox. */
  async pod(word: string, { namespace = 'default', pid = 'container' } = {}): Promise<Pod> {
    const name = `${word}-${this.world.id}-${++this.#count}`
    const logs = join(this.world.dir, `logs-${name}`)
    const options = { pid: pid === 'pod' ? 'POD' : 'CONTAINER' }
    const config = {
      metadata: { name, uid: `uid-${name}`, namespace },
      hostname: name,
      logDirectory: logs,
      linux: { cgroupParent: `/${this.containerd.cgroup}`, securityContext: { namespaceOptions: options } },
    }
    const { podSandboxId: id = '' } = await this.#call('RunPodSandbox', { config })
    const pod: Pod = {
      id,
      name,
      container: async (container, command, image = this.#image) => {
        const [, key = '', value = ''] = /^([^=]*)=(.*)$/.exec(this.world.mark) ?? []
        const request = {
          metadata: { name: container },
          image: { image },
          command,
          envs: [{ key, value }],
          logPath: `${container}.log`,
          linux: { securityContext: { namespaceOptions: options } },
        }
        const made = await this.#call('CreateContainer', { podSandboxId: id, config: request, sandboxConfig: config })
        await this.#call('StartContainer', made)
        const log = join(logs, `${container}.log`)
        const output = (): string => (existsSync(log) ? readFileSync(log, 'utf8').replace(/^\S+ stdout F /gm, '') : '')
        const checkpoint = (location: string) => this.#call('CheckpointContainer', { ...made, location, timeout: 60 })
        return { id: made.containerId ?? '', output, checkpoint }
      },
      remove: async () => {
        for (const method of ['StopPodSandbox', 'RemovePodSandbox']) await this.#call(method, { podSandboxId: id })
        this.#pods.delete(pod)
      },
    }
    this.#pods.add(pod)
    return pod
  }

  /** Of the first process of a container or sandbox. */
  async pid(id: string): Promise<number> {
    return (await this.containerd.task(id))?.pid ?? 0
  }

  async close(): Promise<void> {
    for (const pod of this.#pods) await pod.remove()
    this.#closeClient()
    await this.containerd.close()
  }
}

export function useKubelet(world: Surroundings, options: KubeletOptions = {}): Kubelet {
  const kubelet = new Kubelet(world, options)
  beforeAll(() => kubelet.open(), 60_000)
  afterAll(() => kubelet.close(), 120_000)
  return kubelet
}

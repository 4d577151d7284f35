import type { z } from 'zod'
import type { Host } from '../contract/host.js'
import { refuseNone } from '../contract/kit.js'
import type { QueryResult } from '../contract/runtime.js'
import { Cri } from './client.js'
import { ContainerState, type Container, type PodSandbox, PodSandboxState, RuntimeServiceService as service } from './gen/cri.js'
import type { QueryOptions } from './options.js'

const STATES: Readonly<Record<number, string>> = {
  [ContainerState.CONTAINER_CREATED]: 'created',
  [ContainerState.CONTAINER_RUNNING]: 'running',
  [ContainerState.CONTAINER_EXITED]: 'exited',
}

interface Row {
  readonly pod: PodSandbox
  readonly id: string
  readonly name: string
  readonly state: object
}

const ofContainer = (pod: PodSandbox, one: Container): Row => ({
  pod,
  id: one.id,
  name: one.metadata?.name ?? '',
  state: {
    image: one.image?.image ?? '',
    imageRef: one.imageRef,
    status: STATES[one.state] ?? 'unknown',
    attempt: one.metadata?.attempt ?? 0,
    createdAt: timeOf(one.createdAt),
    labels: one.labels,
    annotations: one.annotations,
  },
})
const ofSandbox = (pod: PodSandbox): Row => ({
  pod,
  id: pod.id,
  name: '',
  state: {
    status: pod.state === PodSandboxState.SANDBOX_READY ? 'ready' : 'not ready',
    attempt: pod.metadata?.attempt ?? 0,
    createdAt: timeOf(pod.createdAt),
    labels: pod.labels,
    annotations: pod.annotations,
  },
})
const timeOf = (nanoseconds: bigint): string => new Date(Number(nanoseconds / 1_000_000n)).toISOString()

const keyOf = ({ pod: { metadata }, name }: Row): string => [metadata?.namespace, metadata?.name, name].join('/')

export async function query(host: Host, options: z.output<typeof QueryOptions>): Promise<QueryResult> {
  using cri = new Cri(host, options.address)
  const [{ runtimeName }, { items }, { containers }] = await Promise.all([
    cri.call(service.version, {}),
    cri.call(service.listPodSandbox, {}),
    cri.call(service.listContainers, {}),
  ])
  const pods = new Map(items.map((pod) => [pod.id, pod]))
  const all =
    options.containerType === 'sandbox'
      ? items.map(ofSandbox)
      : containers.flatMap((one) => {
          const pod = pods.get(one.podSandboxId)
          return pod ? [ofContainer(pod, one)] : []
        })
  const namesOf = ({ pod, id }: Row): readonly string[] => [id, pod.id, pod.metadata?.name ?? '']
  const shown = all
    .filter((row) => options.namespace === '' || row.pod.metadata?.namespace === options.namespace)
    .filter((row) => options.id.length === 0 || options.id.some((name) => namesOf(row).includes(name)))
    .sort((a, b) => keyOf(a).localeCompare(keyOf(b)))
  const rows = shown.map(({ pod, id, name, state }) => {
    const { name: podName = '', namespace = '', uid = '' } = pod.metadata ?? {}
    const cells = {
      'POD ID': pod.id,
      'POD NAME': podName,
      'POD NAMESPACE': namespace,
      'CONTAINER ID': id,
      'CONTAINER RUNTIME': runtimeName,
    }
    return { cells, state: { podId: pod.id, podName, podNamespace: namespace, podUid: uid, id, name, runtime: runtimeName, ...state } }
  })
  const absent = options.id
    .filter((name) => !shown.some((row) => namesOf(row).includes(name)))
    .map((name) => `${name}: no such container or pod`)
  refuseNone('NO_SUCH_CONTAINER', shown, absent)
  const found = `Found ${rows.length} ${options.containerType}${rows.length === 1 ? '' : options.containerType === 'sandbox' ? 'es' : 's'}`
  return {
    columns: ['POD ID', 'POD NAME', 'POD NAMESPACE', 'CONTAINER ID', 'CONTAINER RUNTIME'],
    rows,
    messages: [...(rows.length > 0 ? [found] : []), ...absent],
  }
}

/** What a checkpoint says of the container it is of, whoever made it: the files that podman, CRI-O, containerd and cedana put beside CRIU's images. */
import { z } from 'zod'
import { CedanaError } from '../../plugins/contract/errors.js'
import { CONFIG_DUMP, SPEC_DUMP } from '../../plugins/contract/plan.js'

export const ROOTFS_DIFF = 'rootfs-diff.tar'
/** What was deleted of the root file system: a JSON array of paths. */
export const DELETED_FILES = 'deleted.files'
export const CONTAINER_FILES: readonly string[] = [CONFIG_DUMP, SPEC_DUMP, DELETED_FILES]

export interface ContainedContainer {
  readonly id: string
  readonly name: string
  readonly image: string
  readonly runtime: string
  /** podman, cri-o, containerd; empty: none that says so. */
  readonly engine: string
  /** Of a pod: its name and namespace. */
  readonly pod: string
  readonly podNamespace: string
  readonly createdTime: string
  /** Of the changes to its root file system; 0: none are here. */
  readonly rootfsDiffBytes: number
  readonly deletedFiles: readonly string[]
}

/** Of each program's own shape this is the common part. */
const ConfigDump = z.looseObject({
  id: z.string().default(''),
  name: z.string().default(''),
  rootfsImageName: z.string().default(''),
  runtime: z.string().default(''),
  createdTime: z.string().default(''),
})
const SpecDump = z.looseObject({
  annotations: z
    .record(z.string(), z.string())
    .nullish()
    .transform((annotations) => annotations ?? {}),
})

function parsed<T>(files: ReadonlyMap<string, Uint8Array>, name: string, schema: z.ZodType<T>): T | undefined {
  const bytes = files.get(name)
  if (!bytes) return undefined
  try {
    return schema.parse(JSON.parse(Buffer.from(bytes).toString()))
  } catch (cause) {
    throw new CedanaError('IMAGE_CORRUPT', `${name} is damaged: it is not what its name says`, { cause, detail: { files: [name] } })
  }
}

const MANAGERS: Readonly<Record<string, string>> = { libpod: 'podman', 'cri-o': 'cri-o' }

/** As it names its runtimes. */
const IS_OF_CONTAINERD = /^io[.]containerd[.]/

/** Undefined: not of a container, or of one that nobody described. */
export function readContainer(files: ReadonlyMap<string, Uint8Array>, rootfsDiffBytes: number): ContainedContainer | undefined {
  const config = parsed(files, CONFIG_DUMP, ConfigDump)
  if (!config) return undefined
  const { annotations } = parsed(files, SPEC_DUMP, SpecDump) ?? { annotations: {} }
  const { 'io.container.manager': manager = '' } = annotations
  const prefix = manager === 'cri-o' ? 'io.kubernetes' : 'io.kubernetes.cri'
  const of = (suffix: string): string => annotations[`${prefix}.${suffix}`] ?? ''
  const isCri = of('sandbox-id') !== ''
  return {
    id: config.id,
    name: of('container-name') || of('container.name') || config.name,
    image: config.rootfsImageName || of('image-name'),
    runtime: config.runtime,
    engine: MANAGERS[manager] ?? (isCri || IS_OF_CONTAINERD.test(config.runtime) ? 'containerd' : ''),
    pod: of('sandbox-name') || of('pod.name'),
    podNamespace: of('sandbox-namespace') || of('pod.namespace'),
    createdTime: config.createdTime,
    rootfsDiffBytes,
    deletedFiles: parsed(files, DELETED_FILES, z.array(z.string())) ?? [],
  }
}

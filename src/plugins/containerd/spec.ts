/** The specification of a container made of an image, as containerd's own clients make it. */
import { z } from 'zod'
import type { Any } from './gen/google/protobuf/any.js'
import { type ContainerEdits, edited } from './cdi.js'
import type { ImageSettings } from './images.js'
import type { Identity } from './state.js'

/** As far as is looked into it; what is not known stays as it is. */
export const Spec = z.looseObject({
  process: z.looseObject({ terminal: z.boolean().optional(), env: z.array(z.string()).nullish() }),
  root: z.looseObject({ path: z.string() }),
  linux: z.looseObject({ cgroupsPath: z.string().nullish() }).nullish(),
  mounts: z
    .array(z.looseObject({ type: z.string().optional(), source: z.string().optional(), options: z.array(z.string()).nullish() }))
    .nullish(),
  annotations: z.record(z.string(), z.string()).nullish(),
})
export type Spec = z.output<typeof Spec>

/** As containerd keeps it with the container. */
export const parseSpec = (spec: Any | undefined): Spec => Spec.parse(JSON.parse(Buffer.from(spec?.value ?? []).toString()))

export const cgroupOf = ({ namespace, id }: Identity): string => `/${namespace}/${id}`

/** The specification of a container that has another name now: its cgroup is called by that. */
export function named(spec: Spec, { from, to }: { readonly from: Identity; readonly to: Identity }): Spec {
  if (spec.linux?.cgroupsPath !== cgroupOf(from)) return spec
  return { ...spec, linux: { ...spec.linux, cgroupsPath: cgroupOf(to) } }
}

interface Made {
  readonly id: string
  readonly namespace: string
  readonly image: ImageSettings
  readonly args: readonly string[]
  readonly env: readonly string[]
  /** Absent: the snapshot's. */
  readonly rootfs?: string | undefined
  readonly user: { readonly uid: number; readonly gid: number; readonly additionalGids: readonly number[] }
  readonly terminal: { readonly rows: number; readonly columns: number } | undefined
  readonly edits: ContainerEdits
}

const CAPABILITIES = [
  'CHOWN',
  'DAC_OVERRIDE',
  'FSETID',
  'FOWNER',
  'MKNOD',
  'NET_RAW',
  'SETGID',
  'SETUID',
  'SETFCAP',
  'SETPCAP',
  'NET_BIND_SERVICE',
  'SYS_CHROOT',
  'KILL',
  'AUDIT_WRITE',
].map((name) => `CAP_${name}`)

const DEFAULT_PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const SHARED = ['nosuid', 'noexec', 'nodev']
const MOUNTS = [
  { destination: '/proc', type: 'proc', source: 'proc', options: SHARED },
  { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'] },
  {
    destination: '/dev/pts',
    type: 'devpts',
    source: 'devpts',
    options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
  },
  { destination: '/dev/shm', type: 'tmpfs', source: 'shm', options: [...SHARED, 'mode=1777', 'size=65536k'] },
  { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: SHARED },
  { destination: '/sys', type: 'sysfs', source: 'sysfs', options: [...SHARED, 'ro'] },
  { destination: '/run', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'] },
]
const MASKED = ['acpi', 'asound', 'kcore', 'keys', 'latency_stats', 'timer_list', 'timer_stats', 'sched_debug', 'scsi']
const READ_ONLY = ['bus', 'fs', 'irq', 'sys', 'sysrq-trigger']

/** Later ones win. */
function environmentOf(...groups: readonly (readonly string[])[]): string[] {
  const byName = new Map(groups.flat().map((line) => [line.split('=', 1)[0] ?? '', line]))
  return [...byName.values()]
}

export function specOf({ id, namespace, image, args, env, rootfs, user, terminal, edits }: Made): object {
  const command = args.length > 0 && image.Entrypoint.length === 0 ? args : [...image.Entrypoint, ...(args.length > 0 ? args : image.Cmd)]
  const spec = {
    ociVersion: '1.0.2',
    process: {
      user,
      args: command,
      cwd: image.WorkingDir || '/',
      env: environmentOf([DEFAULT_PATH], terminal ? ['TERM=xterm'] : [], image.Env, env),
      capabilities: { bounding: CAPABILITIES, effective: CAPABILITIES, permitted: CAPABILITIES },
      rlimits: [{ type: 'RLIMIT_NOFILE', hard: 1024, soft: 1024 }],
      noNewPrivileges: true,
      ...(terminal ? { terminal: true, consoleSize: { height: terminal.rows, width: terminal.columns } } : {}),
    },
    root: { path: rootfs ?? 'rootfs' },
    mounts: MOUNTS,
    linux: {
      cgroupsPath: `/${namespace}/${id}`,
      resources: { devices: [{ allow: false, access: 'rwm' }] },
      namespaces: ['pid', 'ipc', 'uts', 'mount', 'network'].map((type) => ({ type })),
      maskedPaths: [...MASKED.map((name) => `/proc/${name}`), '/sys/firmware'],
      readonlyPaths: READ_ONLY.map((name) => `/proc/${name}`),
    },
  }
  return edited(spec, edits)
}

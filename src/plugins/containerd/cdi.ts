/**
 * Devices for a container, as their vendors describe them (Container Device Interface): for a GPU of NVIDIA's that is what `nvidia-ctk cdi generate`
 * has written. The description is turned into the container's own specification, so that a dump and a restore find everything there.
 */
import { parse } from 'yaml'
import { z } from 'zod'
import { CedanaError } from '../contract/errors.js'
import type { Host } from '../contract/host.js'

/** What is in the second one counts more. */
const DIRECTORIES = ['/etc/cdi', '/var/run/cdi'] as const
const NVIDIA = 'nvidia.com/gpu'

const id = z.int().nonnegative()
const HOOKS = ['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart', 'poststop'] as const
/** Strict: what is not known cannot be left out silently. */
const Edits = z.strictObject({
  env: z.array(z.string()).default([]),
  deviceNodes: z
    .array(
      z.strictObject({
        path: z.string(),
        hostPath: z.string().optional(),
        type: z.enum(['b', 'c', 'u', 'p']).optional(),
        major: z.int().optional(),
        minor: z.int().optional(),
        fileMode: z.int().optional(),
        permissions: z.string().default('rwm'),
        uid: id.optional(),
        gid: id.optional(),
      }),
    )
    .default([]),
  mounts: z
    .array(
      z.strictObject({
        hostPath: z.string(),
        containerPath: z.string(),
        options: z.array(z.string()).optional(),
        type: z.string().optional(),
      }),
    )
    .default([]),
  hooks: z
    .array(
      z.strictObject({
        hookName: z.enum(HOOKS),
        path: z.string(),
        args: z.array(z.string()).optional(),
        env: z.array(z.string()).optional(),
        timeout: z.int().optional(),
      }),
    )
    .default([]),
  additionalGids: z.array(id).default([]),
})
const File = z.object({
  kind: z.string(),
  containerEdits: z.unknown().optional(),
  devices: z.array(z.object({ name: z.string(), containerEdits: z.unknown().optional() })),
})

type DeviceNode = z.output<typeof Edits>['deviceNodes'][number]
/** Of all devices that were asked for; nodes have their numbers. */
export type ContainerEdits = z.output<typeof Edits>
export const NO_EDITS: ContainerEdits = { env: [], deviceNodes: [], mounts: [], hooks: [], additionalGids: [] }

/** `0` and `all` are GPUs of NVIDIA's. */
export const deviceName = (given: string): string => (given.includes('=') ? given : `${NVIDIA}=${given}`)

interface Described {
  readonly file: string
  readonly own: unknown
  readonly shared: unknown
  /** Nobody can say which one is meant. */
  readonly isDouble: boolean
}

/** Throws HOST_UNFIT in words that name the device. */
export async function editsFor(host: Host, given: readonly string[]): Promise<ContainerEdits> {
  const { known, troubles } = given.length === 0 ? NOTHING : await readAll(host)
  const described = given.map((one) => {
    const device = known.get(deviceName(one))
    if (device) return device
    const [trouble] = troubles
    const names = [...known.keys()].join(', ')
    const hint =
      names === '' ? 'have it described, for NVIDIA: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml' : `there are: ${names}`
    throw new CedanaError('HOST_UNFIT', `no device ${deviceName(one)} is described in ${DIRECTORIES.join(' or ')}`, {
      hint: trouble === undefined ? hint : trouble.message,
    })
  })
  const shared = new Map(described.map(({ file, shared: edits }) => [file, edits]))
  const all = [...shared.entries(), ...described.map(({ file, own }) => [file, own] as const)].map(([file, edits]) => {
    const parsed = Edits.safeParse(edits ?? {})
    if (parsed.success) return parsed.data
    throw unusable(file, whyOf(parsed.error))
  })
  return {
    env: all.flatMap(({ env }) => env),
    deviceNodes: await Promise.all(all.flatMap(({ deviceNodes }) => deviceNodes).map((node) => numbered(host, node))),
    mounts: all.flatMap(({ mounts }) => mounts),
    hooks: all.flatMap(({ hooks }) => hooks),
    additionalGids: all.flatMap(({ additionalGids }) => additionalGids),
  }
}

const unusable = (file: string, why: string): CedanaError =>
  new CedanaError('HOST_UNFIT', `the description of devices ${file} cannot be used: ${why}`, { hint: 'have it made anew' })

const whyOf = ({ issues: [issue] }: z.ZodError): string => [...(issue?.path ?? []), issue?.message ?? 'bad'].join(': ')

interface Descriptions {
  readonly known: ReadonlyMap<string, Described>
  /** What kept others from being known: a file that is none, or a device that has two. */
  readonly troubles: readonly CedanaError[]
}
const NOTHING: Descriptions = { known: new Map(), troubles: [] }

async function readAll(host: Host): Promise<Descriptions> {
  const known = new Map<string, Described>()
  const troubles: CedanaError[] = []
  for (const directory of DIRECTORIES) {
    const here = new Map<string, Described>()
    for (const file of await filesIn(host, directory)) {
      const devices = await readFile(host, file).catch((thrown: unknown) => {
        troubles.push(CedanaError.from(thrown))
        return []
      })
      for (const [name, device] of devices) {
        const other = here.get(name)
        if (other) troubles.push(unusable(file, `${name} is described in ${other.file} as well`))
        here.set(name, other ? { ...device, isDouble: true } : device)
      }
    }
    for (const [name, device] of here)
      if (device.isDouble) known.delete(name)
      else known.set(name, device)
  }
  return { known, troubles }
}

async function filesIn(host: Host, directory: string): Promise<readonly string[]> {
  if (!(await host.exists(directory))) return []
  const { stdout } = await host.exec(['find', '-L', directory, '-maxdepth', '1', '-type', 'f'])
  return stdout
    .split('\n')
    .filter((path) => /\.(json|ya?ml)$/.test(path))
    .sort()
}

async function readFile(host: Host, file: string): Promise<readonly (readonly [string, Described])[]> {
  const text = await host.readText(file)
  if (text === undefined) return []
  let content: unknown
  try {
    // Of YAML 1.1 modes are octal, as whoever writes them means them.
    content = parse(text, { version: '1.1' })
  } catch (cause) {
    throw unusable(file, CedanaError.from(cause).message.split('\n')[0] ?? '')
  }
  const parsed = File.safeParse(content)
  if (!parsed.success) throw unusable(file, whyOf(parsed.error))
  const { kind, containerEdits: shared, devices } = parsed.data
  return devices.map(({ name, containerEdits: own }) => [`${kind}=${name}`, { file, own, shared, isDouble: false }])
}

/** A node that is not described any closer is what it is on the host. */
async function numbered(host: Host, node: DeviceNode): Promise<DeviceNode> {
  if (node.type !== undefined && (node.type === 'p' || node.major !== undefined)) return node
  const path = node.hostPath ?? node.path
  const { code, stdout, stderr } = await host.exec(['stat', '-L', '-c', '%F:%t:%T', path])
  const [, kind, major, minor] = /^(block|character) special file:([0-9a-f]+):([0-9a-f]+)\n$/.exec(stdout) ?? []
  if (code === 0 && kind !== undefined)
    return { ...node, type: kind === 'block' ? 'b' : 'c', major: parseInt(major ?? '', 16), minor: parseInt(minor ?? '', 16) }
  throw new CedanaError('HOST_UNFIT', code === 0 ? `${path} is no device` : `there is no device ${path}: ${stderr.trim()}`, {
    hint: 'load its driver, or have the description of devices made anew',
  })
}

/** As far as it is edited. */
interface Editable {
  readonly process: {
    readonly env: readonly string[]
    readonly user: { readonly uid: number; readonly gid: number; readonly additionalGids: readonly number[] }
  }
  readonly mounts: readonly { readonly destination: string }[]
  readonly linux: { readonly resources: { readonly devices: readonly object[] } }
}

/** The specification with all of it. */
export function edited(spec: Editable, { env, deviceNodes, mounts, hooks, additionalGids }: ContainerEdits): object {
  const { user } = spec.process
  const nameOf = (line: string): string => line.split('=', 1)[0] ?? ''
  const isOther = (line: string): boolean => !env.some((one) => nameOf(one) === nameOf(line))
  const devices = new Map(
    deviceNodes.map(({ path, type, major, minor, fileMode, uid = user.uid, gid = user.gid }) => [
      path,
      { path, type, major, minor, fileMode, uid, gid },
    ]),
  )
  const allowed = deviceNodes
    .filter(({ type }) => type !== 'p')
    .map(({ type, major, minor, permissions: access }) => ({ allow: true, type: type === 'u' ? 'c' : type, major, minor, access }))
  const made = new Map(
    mounts.map(({ hostPath: source, containerPath: destination, options, type }) => [destination, { source, destination, options, type }]),
  )
  const depth = ({ destination }: { readonly destination: string }): number => destination.split('/').filter(Boolean).length
  return {
    ...spec,
    process: {
      ...spec.process,
      env: [...spec.process.env.filter(isOther), ...env],
      user: { ...user, additionalGids: [...new Set([...user.additionalGids, ...additionalGids.filter((gid) => gid > 0)])] },
    },
    // What is below another mount is mounted after it.
    mounts: [...spec.mounts.filter(({ destination }) => !made.has(destination)), ...[...made.values()].sort((a, b) => depth(a) - depth(b))],
    linux: {
      ...spec.linux,
      devices: [...devices.values()],
      resources: { ...spec.linux.resources, devices: [...spec.linux.resources.devices, ...allowed] },
    },
    ...(hooks.length === 0 ? {} : { hooks: hooksOf(hooks) }),
  }
}

const hooksOf = (hooks: ContainerEdits['hooks']): Readonly<Record<string, readonly object[]>> =>
  Object.fromEntries(
    HOOKS.flatMap((name) => {
      const of = hooks.filter(({ hookName }) => hookName === name)
      return of.length === 0 ? [] : [[name, of.map(({ path, args, env, timeout }) => ({ path, args, env, timeout }))]]
    }),
  )

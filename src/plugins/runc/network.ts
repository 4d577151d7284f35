/**
 * The network of a container that has one of its own. Runtimes leave it to hooks, to CRIU's disregard (`empty_ns`), and to whoever made it; so what is
 * in it is saved with the checkpoint and made anew before CRIU restores the first socket, which needs its routes.
 */
import { z } from 'zod'
import { CedanaError } from '../contract/errors.js'
import type { Host } from '../contract/host.js'
import type { Command, Problem } from '../contract/plan.js'

const Address = z.object({ local: z.string(), prefixlen: z.int(), family: z.string(), scope: z.string() })
/** As `ip -json -details address` prints it. */
const Link = z.object({
  ifindex: z.int(),
  ifname: z.string(),
  flags: z.array(z.string()),
  mtu: z.int(),
  address: z.string().optional(),
  link_index: z.int().nullish(),
  master: z.string().optional(),
  linkinfo: z.object({ info_kind: z.string().optional() }).optional(),
  addr_info: z.array(Address).default([]),
})
type Link = z.output<typeof Link>
/** As `ip -json route` prints it. */
const Route = z.object({
  dst: z.string(),
  dev: z.string().optional(),
  gateway: z.string().optional(),
  prefsrc: z.string().optional(),
  protocol: z.string().optional(),
  scope: z.string().optional(),
  metric: z.int().optional(),
  flags: z.array(z.string()).default([]),
})

const End = z.object({
  name: z.string(),
  mac: z.string(),
  mtu: z.int(),
  isUp: z.boolean(),
  /** `10.0.0.2/24` */
  addresses: z.array(z.string()),
  routes: z.array(Route),
})
type End = z.output<typeof End>
const SavedNetwork = z.object({
  loopback: z.boolean(),
  links: z.array(z.object({ inside: End, kind: z.string(), outside: End.extend({ master: z.string().optional() }).optional() })),
})
export type SavedNetwork = z.output<typeof SavedNetwork>

export const NETWORK = 'network.json'
export const encodeNetwork = (network: SavedNetwork): Uint8Array => Buffer.from(JSON.stringify(network))
export const decodeNetwork = (bytes: Uint8Array): SavedNetwork => SavedNetwork.parse(JSON.parse(Buffer.from(bytes).toString()))

const inNamespace = (pid: string): string[] => ['nsenter', '--target', pid, '--net']

async function ip<T>(host: Host, prefix: readonly string[], args: readonly string[], schema: z.ZodType<T>): Promise<readonly T[]> {
  const [program, ...rest] = [...prefix, 'ip', '-json', ...args] as [string, ...string[]]
  const { code, stdout, stderr } = await host.exec([program, ...rest], { timeoutMs: 5000 })
  if (code !== 0) {
    throw new CedanaError('HOST_UNFIT', `cannot look at the network of the container: ${stderr.trim()}`, {
      hint: 'ip (iproute2) and nsenter (util-linux) are needed',
    })
  }
  return z.array(schema).parse(JSON.parse(stdout.trim() === '' ? '[]' : stdout))
}

const isUp = ({ flags }: Link): boolean => flags.includes('UP')
const kindOf = (link: Link): string => link.linkinfo?.info_kind ?? (link.flags.includes('LOOPBACK') ? 'loopback' : 'device')

function endOf(link: Link, routes: readonly z.output<typeof Route>[]): End {
  // Addresses of scope link come with the device, routes of protocol kernel with the addresses.
  const addresses = link.addr_info.filter(({ scope }) => scope !== 'link').map(({ local, prefixlen }) => `${local}/${prefixlen}`)
  const own = routes.filter(({ dev, protocol }) => dev === link.ifname && protocol !== 'kernel')
  return { name: link.ifname, mac: link.address ?? '', mtu: link.mtu, isUp: isUp(link), addresses, routes: own }
}

async function look(host: Host, prefix: readonly string[]): Promise<{ links: readonly Link[]; routes: readonly z.output<typeof Route>[] }> {
  const [links, ...routes] = await Promise.all([
    ip(host, prefix, ['-details', 'address'], Link),
    ip(host, prefix, ['-4', 'route'], Route),
    ip(host, prefix, ['-6', 'route'], Route),
  ])
  return { links, routes: routes.flat() }
}

/** What is in the network namespace of a process, with the other ends of its veth devices where they are on this host. */
export async function lookAtNetwork(host: Host, pid: number): Promise<{ network: SavedNetwork; problems: readonly Problem[] }> {
  const inside = await look(host, inNamespace(String(pid)))
  const devices = inside.links.filter((link) => kindOf(link) !== 'loopback')
  const outside = devices.some((link) => kindOf(link) === 'veth') ? await look(host, []) : { links: [], routes: [] }
  const problems: Problem[] = []
  const links = devices.flatMap((link): SavedNetwork['links'] => {
    const kind = kindOf(link)
    const peer = outside.links.find((one) => kindOf(one) === 'veth' && one.ifindex === link.link_index && one.link_index === link.ifindex)
    if (kind !== 'dummy' && !peer) {
      const what = kind === 'veth' ? 'the other end of which is not on this host' : `of kind ${kind}`
      problems.push({
        severity: 'warning',
        id: 'device-not-saved',
        message: `network device ${link.ifname}, ${what}, is not in the checkpoint`,
      })
      return []
    }
    const end = peer && { ...endOf(peer, outside.routes), ...(peer.master === undefined ? {} : { master: peer.master }) }
    return [{ inside: endOf(link, inside.routes), kind, ...(end ? { outside: end } : {}) }]
  })
  const loopback = inside.links.some((link) => kindOf(link) === 'loopback' && isUp(link))
  return { network: { loopback, links }, problems }
}

/** Stands for the PID of the process whose namespaces have just been made. */
export const PID = '$CRTOOLS_INIT_PID'

const bringUp = (prefix: readonly string[], end: End): Command[] => [
  ...end.addresses.map((address): Command => ({
    argv: [...prefix, 'ip', 'address', 'add', address, 'dev', end.name, ...(address.includes(':') ? ['nodad'] : [])],
  })),
  ...(end.isUp ? [{ argv: [...prefix, 'ip', 'link', 'set', end.name, 'up'] }] : []),
]

const addRoutes = (prefix: readonly string[], { routes, name }: End): Command[] =>
  // Those that lead to a gateway need those that lead to its network.
  [...routes.filter(({ gateway }) => gateway === undefined), ...routes.filter(({ gateway }) => gateway !== undefined)].map((route) => ({
    argv: [
      ...prefix,
      ...['ip', 'route', 'add', route.dst],
      ...(route.gateway === undefined ? [] : ['via', route.gateway]),
      ...['dev', name],
      ...(route.prefsrc === undefined ? [] : ['src', route.prefsrc]),
      ...(route.scope === undefined ? [] : ['scope', route.scope]),
      ...(route.metric === undefined ? [] : ['metric', String(route.metric)]),
      ...(route.flags.includes('onlink') ? ['onlink'] : []),
    ],
  }))

/** Another IPv4 address for eth0. */
export function withAddress(network: SavedNetwork, address: string | undefined): SavedNetwork {
  if (address === undefined) return network
  const links = network.links.map((link) => {
    if (link.inside.name !== 'eth0') return link
    const addresses = link.inside.addresses.map((one) => (one.includes(':') ? one : `${address}/${one.split('/')[1] ?? '32'}`))
    const routes = link.inside.routes.map(({ prefsrc, ...route }) => (prefsrc?.includes(':') === true ? { ...route, prefsrc } : route))
    return { ...link, inside: { ...link.inside, addresses, routes } }
  })
  return { ...network, links }
}

/** What makes the same network in the namespace of PID. A device that is there already was made by a hook, and is left alone. */
export function networkCommands({ loopback, links }: SavedNetwork): readonly Command[] {
  const inside = inNamespace(PID)
  const devices = links.flatMap(({ kind, inside: end, outside }) => {
    const unless = [...inside, 'ip', 'link', 'show', end.name]
    const there = ['address', end.mac, 'mtu', String(end.mtu)]
    const add = outside
      ? [
          'ip',
          'link',
          'add',
          outside.name,
          'address',
          outside.mac,
          'mtu',
          String(outside.mtu),
          'type',
          'veth',
          'peer',
          'name',
          end.name,
          ...there,
          'netns',
          PID,
        ]
      : [...inside, 'ip', 'link', 'add', end.name, ...there, 'type', kind]
    const master = outside?.master === undefined ? [] : [{ argv: ['ip', 'link', 'set', outside.name, 'master', outside.master] }]
    const all = [
      { argv: add },
      ...master,
      ...(outside ? bringUp([], outside) : []),
      ...bringUp(inside, end),
      ...(outside ? addRoutes([], outside) : []),
      ...addRoutes(inside, end),
    ]
    return all.map((command): Command => ({ ...command, unless }))
  })
  return [...(loopback ? [{ argv: [...inside, 'ip', 'link', 'set', 'lo', 'up'] }] : []), ...devices]
}

/** What stands in the way of making it here. */
export async function networkProblems(host: Host, { links }: SavedNetwork): Promise<readonly Problem[]> {
  const problems: Problem[] = []
  for (const { inside, outside } of links) {
    if (!outside) continue
    if (await host.exists(`/sys/class/net/${outside.name}`)) {
      const message = `network device ${outside.name}, the other end of the container's ${inside.name}, exists already`
      const hint = 'end the container that has it, or give this one a network namespace by its path'
      problems.push({ severity: 'error', id: 'device-in-use', message, hint })
    }
    if (outside.master !== undefined && !(await host.exists(`/sys/class/net/${outside.master}`))) {
      const message = `bridge ${outside.master}, which the container's ${inside.name} was connected to, does not exist`
      problems.push({ severity: 'error', id: 'bridge-missing', message, hint: 'make it first' })
    }
  }
  return problems
}

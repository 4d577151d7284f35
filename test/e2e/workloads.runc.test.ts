/** Programs that people run in containers, in a Debian of their own, with clients on the other side of a network. */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, writeFileSync } from 'node:fs'
import { createConnection, type Socket } from 'node:net'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { type Spec, subnetOf, useContainers } from '../support/containers.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

/** Made by `scripts/setup --tests`. */
const DEBIAN = '/var/cache/cedana/debian-rootfs'

const world = useWorld()
const containers = useContainers(world)
const root = (): string[] => ['--root', containers.root]

interface Service {
  readonly id: string
  readonly jid: string
  readonly address: string
}

let services = 0

/** A container of Debian with a network of its own that this host is on. */
async function service(name: string, args: readonly string[], change: (spec: Spec) => void = () => undefined): Promise<Service> {
  const id = containers.id(name)
  const jid = world.jid(name)
  const bundle = containers.bundle(id, {
    args,
    readonly: true,
    change: (spec) => {
      spec.root.path = DEBIAN
      spec.process.env = spec.process.env.map((line) => (line.startsWith('PATH=') ? 'PATH=/usr/sbin:/usr/bin:/sbin:/bin' : line))
      const capabilities = ['SETUID', 'SETGID', 'CHOWN', 'DAC_OVERRIDE', 'KILL', 'NET_BIND_SERVICE'].map((one) => `CAP_${one}`)
      spec.process['capabilities'] = { bounding: capabilities, effective: capabilities, permitted: capabilities }
      for (const destination of ['/run', '/tmp', '/var/log', '/var/lib/nginx'])
        spec.mounts.push({ destination, type: 'tmpfs', source: 'tmpfs', options: ['mode=755'] })
      change(spec)
    },
  })
  const { stdout } = await world.ok(['run', 'runc', id, '--jid', jid, '--bundle', bundle, ...root()])
  const pid = /PID (\d+)/.exec(stdout)?.[1] ?? ''
  const number = ++services
  const [device, subnet] = [`cs${number}${world.id.slice(0, 6)}`, subnetOf(world, number)]
  const ip = (...words: string[]) => execFileSync('ip', words)
  const inside = (...words: string[]) => execFileSync('nsenter', ['--target', pid, '--net', 'ip', ...words])
  ip('link', 'add', device, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', pid)
  ip('address', 'add', `${subnet}.1/24`, 'dev', device)
  ip('link', 'set', device, 'up')
  inside('address', 'add', `${subnet}.2/24`, 'dev', 'eth0')
  for (const one of ['lo', 'eth0']) inside('link', 'set', one, 'up')
  return { id, jid, address: `${subnet}.2` }
}

/** A connection that speaks in lines and is asked one thing at a time. */
class Client {
  #received = ''
  private constructor(private readonly socket: Socket) {
    socket.on('data', (chunk: Buffer) => (this.#received += chunk.toString()))
  }

  static async to(host: string, port: number): Promise<Client> {
    for (const late = Date.now() + 10_000; ;) {
      const socket = createConnection({ host, port })
      try {
        await once(socket, 'connect')
        return new Client(socket)
      } catch (error) {
        socket.destroy()
        if (Date.now() > late) throw error
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
    }
  }

  async ask(text: string, answer: RegExp): Promise<string> {
    this.#received = ''
    this.socket.write(text)
    await until(`an answer like ${answer}`, () => answer.test(this.#received), 15_000)
    return this.#received
  }

  close(): void {
    this.socket.destroy()
  }
}

async function throughCheckpoint({ jid }: Service, ...flags: string[]): Promise<void> {
  await world.quick(['dump', 'job', jid, ...flags])
  await world.quick(['restore', 'job', jid])
}

describe('Debian in a container', () => {
  test('set-up has made it', () => expect(existsSync(join(DEBIAN, 'usr/sbin/nginx'))).toBe(true))

  test('redis: its data, and the connection of its client', async () => {
    const redis = await service('redis', ['redis-server', '--bind', '0.0.0.0', '--protected-mode', 'no', '--save', '', '--dir', '/tmp'])
    const client = await Client.to(redis.address, 6379)
    const fill = 'for i = 1, 20000 do redis.call("SET", "key:" .. i, string.rep(i, 10)) end return "done"'
    await client.ask(`*3\r\n$4\r\nEVAL\r\n$${fill.length}\r\n${fill}\r\n$1\r\n0\r\n`, /done\r\n/)
    expect(await client.ask('INCR counter\r\n', /:\d+\r\n/)).toBe(':1\r\n')
    const sum = 'local n = 0 for i = 1, 20000 do if redis.call("GET", "key:" .. i) == string.rep(i, 10) then n = n + 1 end end return n'
    for (let round = 2; round <= 3; round++) {
      await throughCheckpoint(redis)
      expect(await client.ask('INCR counter\r\n', /:\d+\r\n/)).toBe(`:${round}\r\n`)
      expect(await client.ask(`*3\r\n$4\r\nEVAL\r\n$${sum.length}\r\n${sum}\r\n$1\r\n0\r\n`, /:\d+\r\n/)).toBe(':20000\r\n')
    }
    client.close()
    const fresh = await Client.to(redis.address, 6379)
    expect(await fresh.ask('DBSIZE\r\n', /:\d+\r\n/)).toBe(':20001\r\n')
    fresh.close()
    await world.quick(['kill', redis.jid])
  })

  test('nginx: its workers, its log in a tmpfs, a connection that is kept alive, and new ones', async () => {
    const config = join(world.work(), 'nginx.conf')
    writeFileSync(
      config,
      `user root; worker_processes 2; daemon off; pid /run/nginx.pid; error_log /var/log/error.log;
       events {} http { access_log /var/log/access.log; keepalive_timeout 1h; server { listen 80; location / { return 200 "hello $connection_requests\\n"; } } }`,
    )
    const nginx = await service('nginx', ['nginx', '-e', '/var/log/error.log'], (spec) => {
      spec.mounts.push({ destination: '/etc/nginx/nginx.conf', type: 'bind', source: config, options: ['bind', 'ro'] })
    })
    const get = 'GET / HTTP/1.1\r\nHost: test\r\n\r\n'
    const client = await Client.to(nginx.address, 80)
    expect(await client.ask(get, /hello \d+\n/)).toContain('hello 1\n')
    await throughCheckpoint(nginx, '--compression', 'zstd')
    expect(await client.ask(get, /hello \d+\n/)).toContain('hello 2\n')
    const other = await Client.to(nginx.address, 80)
    expect(await other.ask(get, /hello \d+\n/)).toContain('hello 1\n')
    for (const one of [client, other]) one.close()
    expect((await containers.ok('exec', nginx.id, 'cat', '/var/log/access.log')).trim().split('\n')).toHaveLength(3)
    expect(await containers.ok('exec', nginx.id, 'cat', '/run/nginx.pid')).toBe('1\n')
    await world.quick(['kill', nginx.jid])
  })
})

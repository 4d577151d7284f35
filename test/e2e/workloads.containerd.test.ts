/** Programs that people run in containers of containerd, made of an image with a Debian, with what they have written. */
import { mkdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { useContainerd } from '../support/containerd.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

/** Made by `scripts/setup --tests`. */
const DEBIAN = '/var/cache/cedana/debian-rootfs'

const world = useWorld()
const containerd = useContainerd(world)
let debian = ''

/** Without the user of its own, whose limits CRIU cannot read on a host without CAP_SYS_RESOURCE. */
const NGINX = `user root; worker_processes 2; daemon off; pid /run/nginx.pid;
events {} http { access_log /var/log/nginx/access.log; server { listen 80; root /var/www/html; } }`

beforeAll(async () => {
  const ours = join(world.work(), 'etc/nginx')
  mkdirSync(ours, { recursive: true })
  writeFileSync(join(ours, 'nginx.conf'), NGINX)
  debian = await containerd.image('debian', [DEBIAN, join(ours, '../..')], { Env: ['PATH=/usr/sbin:/usr/bin:/sbin:/bin', world.mark] })
})

async function service(word: string, args: readonly string[]): Promise<string> {
  const jid = world.jid(word)
  await world.ok(['run', 'containerd', debian, '--jid', jid, ...containerd.flags, '--', ...args])
  return jid
}

/** Dumped with its writable layer and forgotten: all there is of it is the checkpoint. */
async function moved(jid: string, flags: readonly string[]): Promise<string> {
  const path = /^Dumped to (.+)$/m.exec((await world.quick(['dump', 'job', jid, '--rootfs', ...flags])).stdout)?.[1] ?? ''
  await world.quick(['job', 'delete', jid])
  expect(await containerd.containers()).not.toContain(jid)
  await world.ok(['restore', 'containerd', '--path', path, '--attachable'])
  return jid
}

const kill = async (id: string) => {
  const jid = (await world.ps()).find(([, type]) => type === 'containerd')?.[0] ?? ''
  await world.quick(['job', 'kill', jid])
  expect(await containerd.containers()).not.toContain(id)
}

describe('in a container of containerd', () => {
  test('nginx serves what had been changed, and goes on with its log', async () => {
    const id = await service('nginx', ['nginx'])
    const get = (path: string) =>
      containerd.exec(id, 'bash', '-c', `exec 3<>/dev/tcp/127.0.0.1/80; printf 'GET ${path} HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3`)
    await until('nginx answers', () =>
      get('/before')
        .then((text) => text.includes('404 Not Found'))
        .catch(() => false),
    )
    await containerd.exec(id, 'bash', '-c', 'echo changed > /var/www/html/index.html')
    await moved(id, ['--compression', 'zstd'])
    expect(await get('/')).toMatch(/200 OK[^]*\nchanged\n$/)
    await get('/after')
    const log = await containerd.exec(id, 'cat', '/var/log/nginx/access.log')
    expect(log).toMatch(/GET \/before [^]*GET \/ [^]*GET \/after /)
    await kill(id)
  })

  test('redis has its data, in memory and on disk', async () => {
    const id = await service('redis', ['redis-server', '--dir', '/var/lib/redis', '--appendonly', 'yes', '--save', ''])
    const redis = (...args: string[]) => containerd.exec(id, 'redis-cli', ...args)
    await until('redis answers', () =>
      redis('ping')
        .then((text) => text === 'PONG\n')
        .catch(() => false),
    )
    await redis('eval', 'for i = 1, 20000 do redis.call("set", "key" .. i, string.rep("x", 100) .. i) end', '0')
    await moved(id, ['--streams', '4', '--compression', 'lz4'])
    expect(await redis('dbsize')).toBe('20000\n')
    expect(await redis('get', 'key777')).toBe(`${'x'.repeat(100)}777\n`)
    await redis('set', 'after', 'restore')
    const written = () => containerd.exec(id, 'bash', '-c', 'cat /var/lib/redis/appendonlydir/*.aof | tail -n 1')
    await until('it is on the disk', async () => (await written()) === 'restore\r\n')
    await kill(id)
  })

  test('an established TCP connection goes on', async () => {
    const jid = world.jid('connected')
    const script =
      'nc -l -p 7000 -e cat & until grep -q ":1B58 [0-9A-F]*:0000 0A" /proc/net/tcp /proc/net/tcp6; do sleep 0.02; done; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done | nc 127.0.0.1 7000'
    const image = await containerd.busybox()
    await world.ok(['run', 'containerd', image, '--jid', jid, ...containerd.flags, '--', 'sh', '-c', script])
    const counted = () => readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8').trim().split('\n').map(Number)
    await until('what was said comes back', () => counted().length > 5)
    await world.quick(['dump', 'job', jid])
    const before = counted().length
    await world.quick(['restore', 'job', jid])
    await until('it comes back still', () => counted().length > before + 5)
    expect(counted()).toEqual(counted().map((_, index) => index + 1))
    await world.quick(['job', 'kill', jid])
  })

  test('a program shares the network of another container, as in a pod', async () => {
    const [sandbox, id] = [containerd.id('sandbox'), containerd.id('member')]
    const image = await containerd.busybox()
    const pid = await containerd.run(image, sandbox, ['sleep', '1000'])
    const path = `/proc/${pid}/ns/net`
    await containerd.run(image, id, ['nc', '-ll', '-p', '7000', '-e', 'echo', 'here'], ['--with-ns', `network:${path}`])
    const ask = () => containerd.exec(sandbox, 'sh', '-c', 'nc 127.0.0.1 7000 < /dev/null')
    await until('it answers', () =>
      ask()
        .then((text) => text === 'here\n')
        .catch(() => false),
    )
    const { stdout } = await world.ok(['dump', 'containerd', id, ...containerd.flags])
    await world.ok(['restore', 'containerd', '--path', /^Dumped to (.+)$/m.exec(stdout)?.[1] ?? ''])
    expect(readlinkSync(`/proc/${(await containerd.task(id))?.pid ?? 0}/ns/net`)).toBe(readlinkSync(path))
    expect(await ask()).toBe('here\n')
    await containerd.remove(id)
    await containerd.remove(sandbox)
  })
})

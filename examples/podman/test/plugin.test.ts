/** The conformance suite of cedana, with containers of a Podman that has its storage to itself. Needs root. */
import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { openPlugin, runtimeCases, type RuntimeWorld, testHost } from 'cedana/plugin/testing'

const { host, close } = testHost()
// As built, in a process of its own, as with the daemon.
const { plugin, close: closePlugin } = await openPlugin(process.cwd())
const directory = mkdtempSync(join(tmpdir(), 'podman-'))
const flags = [
  `--root=${directory}/root`,
  `--runroot=${directory}/run`,
  '--runtime=runc',
  '--cgroup-manager=cgroupfs',
  '--storage-driver=vfs',
  '--events-backend=none',
]
const podman = (...args: readonly string[]): string => execFileSync('podman', [...flags, ...args], { encoding: 'utf8' }).trim()
after(() => {
  closePlugin()
  close()
  podman('rm', '--all', '--force', '--time=0')
  // What podman starts at the end of each container may still be at work there.
  rmSync(directory, { recursive: true, maxRetries: 10 })
})

const image = 'localhost/busybox:1'
mkdirSync(join(directory, 'image/bin'), { recursive: true })
copyFileSync('/bin/busybox', join(directory, 'image/bin/busybox'))
for (const name of ['sh', 'sleep']) symlinkSync('busybox', join(directory, 'image/bin', name))
execFileSync('tar', ['-C', join(directory, 'image'), '-cf', join(directory, 'image.tar'), '.'])
podman('import', '--quiet', join(directory, 'image.tar'), image)

let count = 0
const world = (): RuntimeWorld => ({
  host,
  run: { image, args: ['true'], podman: flags },
  absent: { options: { container: 'absent', podman: flags }, code: 'NO_SUCH_CONTAINER' },
  start: async () => {
    const name = `live${++count}`
    const limits = ['--ulimit=nofile=1024:1024', '--ulimit=nproc=1024:1024']
    podman('run', '--detach', '--name', name, '--network=host', ...limits, image, 'sh', '-c', 'sleep 100 & wait')
    const target = await host.identify(Number(podman('inspect', '--format={{.State.Pid}}', name)))
    while ((await host.inspect(target)).processes.length < 2) await new Promise((resolve) => setTimeout(resolve, 10))
    return {
      target,
      options: { container: name, podman: flags },
      query: { podman: flags },
      stop: async () => void podman('rm', '--force', '--time=0', name),
    }
  },
})

for (const { name, run } of runtimeCases(plugin, world)) test(name, run)

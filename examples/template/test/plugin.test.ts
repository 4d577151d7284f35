/** The conformance suite of cedana, with live targets of __NAME__. Needs no daemon; some of it needs root. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { openPlugin, runtimeCases, testHost, type RuntimeWorld } from 'cedana/plugin/testing'

const { host, close } = testHost()
// As built, in a process of its own, as with the daemon.
const { plugin, close: closePlugin } = await openPlugin(process.cwd())
const directory = mkdtempSync(join(tmpdir(), '__NAME__-'))
after(() => {
  closePlugin()
  close()
  rmSync(directory, { recursive: true })
})

/** A shell with a child, and a file that holds its PID. */
const world = (): RuntimeWorld => ({
  host,
  run: { pidFile: join(directory, 'run.pid'), program: '/bin/true' },
  absent: { options: { pidFile: join(directory, 'absent.pid') }, code: 'NO_SUCH_PROCESS' },
  start: async () => {
    const child = spawn('/bin/sh', ['-c', 'sleep 100 & echo ready; wait'], { stdio: ['ignore', 'pipe', 'ignore'], detached: true })
    await once(child.stdout, 'data')
    const pidFile = join(directory, `${child.pid}.pid`)
    writeFileSync(pidFile, String(child.pid))
    const target = await host.identify(child.pid!)
    return {
      target,
      options: { pidFile },
      stop: async () => {
        const ended = once(child, 'exit')
        process.kill(-target.pid, 'SIGKILL')
        await ended
      },
    }
  },
})

for (const { name, run } of runtimeCases(plugin, world)) test(name, run)

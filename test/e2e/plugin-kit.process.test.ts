/** What the author of a plugin is given: a package that passes its tests at once, and from then on is a plugin like any other. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { installTypeScript, npm } from '../support/author.js'
import { useWorld } from '../support/world.js'

const world = useWorld()

test('plugin create: a package that passes its tests, installs, and checkpoints', async () => {
  const cwd = world.work()
  await world.ok(['plugin', 'create', 'runtime', 'pidfile'], { cwd })
  expect((await world.fails(['plugin', 'create', 'runtime', 'pidfile'], { cwd })).stderr).toContain('exists already')
  expect((await world.fails(['plugin', 'create', 'runtime', 'Not/A/Name'], { cwd })).stderr).toContain('is no name for a plugin')
  expect((await world.fails(['plugin', 'create', 'storage', 'x'], { cwd })).stderr).toContain(
    'a plugin of kind storage cannot be added yet: only runtimes can be added',
  )
  expect((await world.fails(['plugin', 'create', 'kitchen', 'x'], { cwd })).stderr).toContain('there are no plugins of kind kitchen')

  const directory = join(cwd, 'pidfile')
  installTypeScript(directory)
  const tested = await npm(world, directory, ['test'])
  expect(tested).toContain('# fail 0')
  expect(Number(/# pass (\d+)/.exec(tested)?.[1])).toBeGreaterThan(6)
  await world.ok(['plugin', 'manifest', '--check', directory])

  await world.ok(['plugin', 'install', directory])
  const pidFile = join(cwd, 'counter.pid')
  const jid = world.jid('pidfile')
  const { stdout } = await world.ok(['run', 'pidfile', '--jid', jid, pidFile, 'sleep', '1000'])
  const pid = Number(readFileSync(pidFile, 'utf8'))
  expect(stdout).toContain(`Running managed pidfile PID ${pid}`)
  const [, path = ''] = /^Dumped to (.+)$/m.exec((await world.ok(['dump', 'pidfile', pidFile])).stdout) ?? []
  expect(path).not.toBe('')
  expect((await world.ok(['restore', 'job', jid])).stdout).toContain(`PID: ${pid}`)
  await world.quick(['kill', jid])
}, 120_000)

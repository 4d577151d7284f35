/**
 * Containers whose cgroups systemd makes (`--systemd-cgroup`). This file runs itself once more, under a systemd of its own, for each kind of cgroups: there
 * are the tests proper.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { type Spec, useContainers } from '../support/containers.js'
import { processInfo } from '../support/processes.js'
import { hasLegacyCgroups, SYSTEMD, underSystemd } from '../support/systemd.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const INSIDE = 'CEDANA_TEST_UNDER_SYSTEMD'
const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const COUNT = ['sh', '-c', 'i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done']

interface Report {
  readonly testResults: readonly { readonly message: string; readonly assertionResults: readonly { readonly status: string }[] }[]
}

describe.skipIf(process.env[INSIDE] !== undefined)('under a systemd of its own', () => {
  test.for(['unified', 'legacy'] as const)('cgroups: %s', async (hierarchy, context) => {
    context.skip(!existsSync(SYSTEMD), `needs ${SYSTEMD}`)
    context.skip(hierarchy === 'legacy' && !hasLegacyCgroups(), 'this machine has version 2 of cgroups only')
    const report = join(tmpdir(), `cedana-systemd-${process.pid}-${hierarchy}.json`)
    const vitest = [process.execPath, join(ROOT, 'node_modules/vitest/vitest.mjs'), 'run', '--config', 'test/vitest.config.js'] as const
    const argv = [
      ...vitest,
      '--project',
      'e2e',
      '--testTimeout=60000',
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${report}`,
      fileURLToPath(import.meta.url),
    ] as const
    const environment = { [INSIDE]: hierarchy, PATH: process.env['PATH'] ?? '', HOME: process.env['HOME'] ?? '/root', NO_COLOR: '1' }
    try {
      const said = await underSystemd({ hierarchy, argv, cwd: ROOT, environment })
      const results = existsSync(report) ? (JSON.parse(readFileSync(report, 'utf8')) as Report).testResults : []
      const ran = results
        .flatMap(({ assertionResults }) => assertionResults)
        .filter(({ status }) => status !== 'skipped' && status !== 'pending')
      const isGood = ran.length > 0 && ran.every(({ status }) => status === 'passed') && results.every(({ message }) => message === '')
      expect(isGood, said.slice(-8000)).toBe(true)
    } finally {
      rmSync(report, { force: true })
    }
  })
})

describe.runIf(process.env[INSIDE] !== undefined)('--systemd-cgroup', () => {
  const world = useWorld()
  const containers = useContainers(world)
  const root = (): string[] => ['--root', containers.root]
  const SLICE = 'cedana-test.slice'
  const scopeOf = (id: string): string => `ct-${id}.scope`

  const bundle = (id: string, change: (spec: Spec) => void = () => undefined): string =>
    containers.bundle(id, {
      args: COUNT,
      change: (spec) => {
        spec.linux.cgroupsPath = `${SLICE}:ct:${id}`
        change(spec)
      },
    })
  const show = (id: string, property: string): string =>
    execFileSync('systemctl', ['show', '--property', property, '--value', scopeOf(id)], { encoding: 'utf8' }).trim()
  const isThere = (id: string): boolean => show(id, 'ActiveState') === 'active'
  const status = async (id: string): Promise<string | undefined> => {
    const { code, stdout } = await containers.command('state', id)
    return code === 0 ? (JSON.parse(stdout) as { status: string }).status : undefined
  }
  const output = (jid: string): string => readFileSync(`/var/log/cedana-output-${jid}.log`, 'utf8')
  const counts = async (jid: string): Promise<void> => {
    const { length } = output(jid)
    await until('it counts on', () => output(jid).length > length)
  }
  const gone = (id: string): Promise<unknown> => until('its scope is gone', () => !isThere(id) && !containers.known().includes(id))

  test('run, freeze, dump, restore and kill: its cgroup is a scope of systemd each time', async () => {
    const [id, jid] = [containers.id('scope'), world.jid('scope')]
    await world.ok(['run', 'runc', id, '--jid', jid, '--bundle', bundle(id), '--systemd-cgroup', ...root()])
    for (let round = 0; round < 2; round++) {
      expect(show(id, 'ControlGroup')).toBe(`/cedana.slice/${SLICE}/${scopeOf(id)}`)
      await world.quick(['freeze', 'job', jid])
      expect(await status(id)).toBe('paused')
      const { length } = output(jid)
      await world.quick(['unfreeze', 'job', jid])
      await until('it goes on', () => output(jid).length > length)
      await world.quick(['dump', 'job', jid, '--leave-running'])
      await counts(jid)
      await world.quick(['dump', 'job', jid])
      await gone(id)
      // The flag is of the checkpoint.
      await world.quick(['restore', 'job', jid])
      expect(await status(id)).toBe('running')
      await counts(jid)
    }
    const numbers = output(jid).trim().split('\n').map(Number)
    expect(numbers).toEqual(numbers.map((_, index) => index + 1))
    expect(isThere(id)).toBe(true)
    await world.quick(['freeze', 'job', jid])
    await world.quick(['kill', jid])
    await gone(id)
  })

  test('one that is made by others, awaited, and restored under another id beside it', async () => {
    const [id, jid] = [containers.id('others'), world.jid('others')]
    const made = bundle(id)
    const waiting = world.ok(['manage', 'runc', id, '--upcoming', '--timeout', '20', '--jid', jid, ...root()])
    const [file, ...args] = containers.argv('--systemd-cgroup', 'create', '--bundle', made, id)
    execFileSync(file, args, { stdio: 'ignore' })
    await containers.ok('start', id)
    await waiting
    const { stdout } = await world.quick(['dump', 'job', jid, '--leave-running'])
    const path = /Dumped to (.*)/.exec(stdout)?.[1] ?? ''
    const twin = containers.id('twin')
    await world.ok(['restore', 'runc', '--path', path, '--id', twin, '--bundle', bundle(twin), '--attachable', ...root()])
    expect([isThere(id), isThere(twin)]).toEqual([true, true])
    for (const one of [twin, id]) await containers.ok('delete', '--force', one)
    await Promise.all([gone(twin), gone(id)])
  })

  test('a start that is broken off leaves no scope', async () => {
    const [id, jid, work] = [containers.id('broken'), world.jid('broken'), world.work()]
    const reached = join(work, 'reached')
    const made = bundle(id, (spec) => {
      spec['hooks'] = { prestart: [{ path: '/bin/sh', args: ['sh', '-c', `echo $$ > ${reached}; sleep 60`] }] }
    })
    const call = world.talk(['run', 'runc', id, '--jid', jid, '--bundle', made, '--systemd-cgroup', ...root()])
    const hook = await until('the hook runs', () => (existsSync(reached) ? Number(readFileSync(reached, 'utf8')) || undefined : undefined))
    const runtime = processInfo(hook)?.parent ?? 0
    process.kill(processInfo(runtime)?.parent ?? 0, 'SIGKILL')
    process.kill(runtime, 'SIGKILL')
    expect((await call.exit).code).toBe(1)
    await gone(id)
    expect(await world.row(jid)).toBeUndefined()
  })
})

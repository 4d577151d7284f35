/** The shim under real launchers: what runc and crun make, and what runc restores, is supervised as any job. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { describe, expect, test } from 'vitest'
import { launchShim, readShimExit, readShimState, ShimConnection, type ShimOutput, type ShimRequest } from '../../src/daemon/host/shim.js'
import { useContainers, type BundleOptions, type Containers } from '../support/containers.js'
import { criuPath } from '../support/plain-criu.js'
import { isAlive, processInfo } from '../support/processes.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const world = useWorld({ withoutDaemon: true })
/** runc looks for criu there. */
const PATH = `${dirname(criuPath())}:${process.env['PATH'] ?? ''}`

interface Launch extends BundleOptions {
  readonly request?: Partial<ShimRequest>
  /** Instead of `run`. */
  readonly verb?: readonly string[]
  readonly bundle?: string
  readonly id?: string
}

let directories = 0
/** The shim's request for one container, and where the runtime tells why it failed. */
function launching(containers: Containers, { request = {}, verb = ['run'], ...options }: Launch) {
  const { id, bundle } = { ...containers.container('shim', options), ...options }
  // Deeper than the name of a socket may be.
  const directory = join(world.dir, 'a-job-with-a-long-name'.repeat(5), String(++directories))
  mkdirSync(directory, { mode: 0o700, recursive: true })
  const log = join(world.dir, `runtime-${directories}.log`)
  const pidFile = join(directory, 'pid')
  const consoleSocket = request.stdio === 'tty' ? join(directory, 'tty') : undefined
  const [runtime, ...argv] = containers.argv('--log', log, ...verb, '--detach', '--bundle', bundle, '--pid-file', pidFile)
  if (consoleSocket !== undefined) argv.push('--console-socket', consoleSocket)
  const wanted: ShimRequest = {
    shimPath: resolve('build/Release/cedana-shim'),
    directory,
    stdio: 'pipe',
    argv: [runtime, ...argv, id],
    environment: { PATH },
    launcher: { pidFile, consoleSocket },
    ...request,
  }
  return { wanted, id, bundle, reason: () => (existsSync(log) ? readFileSync(log, 'utf8') : '') }
}

/** Types what belongs to the text seen last, each once, until the end. */
async function talk(connection: ShimConnection, answers: Readonly<Record<string, string>>, attached = connection.attach(true)) {
  let stdout = ''
  let stderr = ''
  const left = new Map(Object.entries(answers))
  for await (const output of attached) {
    if (output.kind === 'exit') return { stdout, stderr, exit: output.exit }
    if (output.kind === 'stderr') stderr += output.bytes.toString()
    else stdout += output.bytes.toString()
    for (const [seen, typed] of left) {
      if (!stdout.includes(seen)) continue
      left.delete(seen)
      await connection.write(Buffer.from(typed))
    }
  }
  return { stdout, stderr, exit: undefined }
}

async function sees(outputs: AsyncIterable<ShimOutput>, text: string): Promise<void> {
  let seen = ''
  for await (const output of outputs) {
    if (output.kind !== 'exit') seen += output.bytes.toString()
    if (seen.includes(text)) return
  }
  throw new Error(`ended after ${JSON.stringify(seen)}`)
}

describe.each(['runc', 'crun'] as const)('%s', (runtime) => {
  const containers = useContainers(world, runtime)

  test('a container has the pipes of its job', async () => {
    const log = join(world.dir, `pipes-${runtime}`)
    const { wanted, id } = launching(containers, {
      args: ['sh', '-c', 'echo out; echo err >&2; cat; exit 42'],
      request: { log, waitAttach: true },
    })
    const launched = await launchShim(wanted)
    expect(await readShimState(wanted.directory)).toMatchObject({ target: { pid: launched.pid }, stdio: 'pipe' })
    expect(processInfo(launched.pid)?.parent).toBe(launched.shim.pid)
    const connection = await ShimConnection.open(wanted.directory)
    const all = talk(connection, {})
    await connection.write(Buffer.from('typed\n'))
    await connection.end()
    expect(await all).toEqual({ stdout: 'out\ntyped\n', stderr: 'err\n', exit: { code: 42 } })
    await launched.done
    expect((await readShimExit(wanted.directory))?.exit).toEqual({ code: 42 })
    expect(readFileSync(log, 'utf8').split('\n').sort()).toEqual(['', 'err', 'out', 'typed'])
    expect(JSON.parse(await containers.ok('state', id))).toMatchObject({ status: 'stopped' })
  })

  test('a container has a terminal of its own, which the job takes over', async () => {
    const log = join(world.dir, `terminal-${runtime}`)
    const script =
      'stty size; tty; trap "echo interrupted" INT; trap "stty size; exit 7" WINCH; while :; do read line; echo got $line; done'
    const { wanted } = launching(containers, {
      terminal: true,
      args: ['sh', '-c', script],
      // crun starts the program before anybody could have given the terminal a size.
      change: (spec) => {
        if (runtime === 'crun') spec.process['consoleSize'] = { height: 33, width: 99 }
      },
      request: { stdio: 'tty', log, waitAttach: true, windowSize: { rows: 33, columns: 99 } },
    })
    const launched = await launchShim(wanted)
    expect(readdirSync(wanted.directory).sort()).toEqual(['shim.sock', 'state'])
    const resident = Number(/^Rss:\s+(\d+)/m.exec(readFileSync(`/proc/${launched.shim.pid}/smaps_rollup`, 'utf8'))?.[1])
    expect(resident).toBeLessThan(2048)
    const connection = await ShimConnection.open(wanted.directory)
    const outputs = connection.attach(true)
    const all = talk(connection, { '/dev/pts/0\r\n': 'typed\n', 'got typed\r\n': '\x03' }, outputs)
    await until('it has heard all', () => readFileSync(log, 'utf8').includes('interrupted'))
    await connection.resize({ rows: 50, columns: 132 })
    const { stdout, exit } = await all
    expect(exit).toEqual({ code: 7 })
    expect(stdout).toMatch(/^33 99\r\n\/dev\/pts\/0\r\ntyped\r\ngot typed\r\n\^C[^]*interrupted\r\n[^]*50 132\r\n$/)
    await launched.done
    expect(readFileSync(log, 'utf8')).toBe(stdout)
  })

  test('why there is no container, the runtime tells in its log', async () => {
    const existing = launching(containers, { request: { stdio: 'none' } })
    const launched = await launchShim(existing.wanted)
    for (const { wanted, reason } of [
      launching(containers, { bundle: '/nonexistent' }),
      launching(containers, { id: existing.id }),
      launching(containers, { args: ['no-such-program'] }),
      launching(containers, { terminal: true, args: ['no-such-program'], request: { stdio: 'tty' } }),
    ]) {
      const failed = await launchShim(wanted).catch((thrown: unknown) => thrown)
      expect(failed).toMatchObject({ code: 'START_FAILED', detail: { step: 'launcher', exitCode: 1 } })
      expect(readdirSync(wanted.directory)).toEqual([])
      // What crun has to say before it has read its options is on its stderr.
      expect((failed as Error).message + reason()).toMatch(/nonexistent|exist|no-such-program/)
    }
    expect(isAlive(launched.pid)).toBe(true)
    process.kill(launched.pid, 'SIGKILL')
    await launched.done
  })

  test('a launch that is given up leaves no process', async () => {
    const reached = join(world.dir, `reached-${runtime}`)
    const { wanted, id } = launching(containers, {
      change: (spec) => {
        spec['hooks'] = { prestart: [{ path: '/bin/sh', args: ['sh', '-c', `echo $$ > ${reached}; while :; do sleep 60; done`] }] }
      },
    })
    const controller = new AbortController()
    const launched = launchShim({ ...wanted, signal: controller.signal })
    launched.catch(() => undefined)
    await until('the hook runs', () => existsSync(reached) && readFileSync(reached, 'utf8') !== '')
    controller.abort()
    await expect(launched).rejects.toMatchObject({ code: 'START_FAILED', detail: { step: 'launcher' } })
    await until('the hook is gone', () => !isAlive(Number(readFileSync(reached, 'utf8'))))
    expect(readdirSync(wanted.directory)).toEqual([])
    expect(containers.known()).not.toContain(id) // nor is there a cgroup: judged at the end
  })
})

describe('runc restore', () => {
  const containers = useContainers(world, 'runc')

  /** As `runc checkpoint`, which ends it. */
  async function checkpoint(id: string): Promise<string> {
    const images = join(world.dir, `images-${id}`)
    const [file, ...args] = containers.argv('checkpoint', '--image-path', images, '--work-path', images, id)
    execFileSync(file, args, { env: { PATH } })
    return images
  }

  test.each(['pipe', 'tty'] as const)('gives a container streams of the new shim: %s', async (stdio) => {
    const script = 'trap "stty size" WINCH; echo ready; while read line; do echo got $line; done; exit 8'
    const { wanted, id, bundle } = launching(containers, {
      terminal: stdio === 'tty',
      args: ['sh', '-c', script],
      request: { stdio },
    })
    const launched = await launchShim(wanted)
    await sees((await ShimConnection.open(wanted.directory)).attach(true), 'ready')
    const images = await checkpoint(id)
    await launched.done

    const verb = ['restore', '--image-path', images, '--work-path', images]
    const again = launching(containers, { verb, id, bundle, request: { stdio, waitAttach: true, windowSize: { rows: 40, columns: 111 } } })
    const stdinFile = join(again.wanted.directory, 'stdin')
    writeFileSync(stdinFile, 'pending\n')
    const restored = await launchShim({ ...again.wanted, stdinFile, stdinEnded: stdio === 'pipe' })
    expect(await readShimState(again.wanted.directory)).toMatchObject({ target: { pid: restored.pid }, stdio })
    const connection = await ShimConnection.open(again.wanted.directory)
    const { stdout, exit } = await talk(connection, { 'pending\r\n': '\x04' })
    expect(exit).toEqual({ code: 8 })
    if (stdio === 'pipe') expect(stdout).toBe('got pending\n')
    else expect(stdout).toMatch(/40 111\r\n/)
    await restored.done
  })
})

/** bench/gpu.sh says clearly that there is no GPU, and runs from end to end against the double. */
import { execFile } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { markedProcesses } from '../support/processes.js'
import { until } from '../support/wait.js'

const SCRIPT = join(import.meta.dirname, '..', '..', 'bench', 'gpu.sh')
const run = promisify(execFile)

test('without a GPU it says so, and measures nothing', async ({ skip }) => {
  if (existsSync('/dev/nvidiactl')) return skip('there is a GPU')
  await expect(run(SCRIPT)).rejects.toMatchObject({
    code: 1,
    stdout: '',
    stderr: expect.stringContaining('there is no GPU on this machine'),
  })
})

test.each([
  ['a driver that does not work', 'init 100', [], /cuInit answered 100[^]*missing: a driver that works/],
  [
    'a driver that is too old',
    'driver 550.54.14\nversion 12040',
    [],
    /missing: the NVIDIA driver \(550.54.14\) is too old to checkpoint processes: 570 or newer is needed$/m,
  ],
  ['a disk that is too small', '', ['--mib', '100000000'], /missing: 200003072 MiB on the disk of/],
  ['a call that fails', 'fault 3 before 999', [], /could not lock process \d+: unknown error/],
])('with %s it says so, and leaves nothing', async (_, settings, flags, message) => {
  const dir = mkdtempSync(join(tmpdir(), 'cedana-gpu-bench-'))
  const env = { ...process.env, DOUBLE_SETTINGS: settings, CEDANA_BENCH_DIR: dir }
  await expect(run(SCRIPT, ['--double', '--mib', '16', ...flags], { env })).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringMatching(message),
  })
  expect(readdirSync(dir)).toEqual([])
  rmdirSync(dir)
  await until('what it has started ends', () => markedProcesses(`CEDANA_BENCH_DIR=${dir}`).length === 0)
})

test('with --double it dumps, restores and checks each workload', async () => {
  const { stdout } = await run(SCRIPT, ['--double', '--rounds', '1', '--mib', '16'])
  expect(stdout).toMatch(/^THE GPU IS A DOUBLE/)
  for (const name of ['add', 'memory', 'graph'])
    expect(stdout).toMatch(new RegExp(`^\\| ${name} (\\| [\\d.]+ ms(, [\\d.]+ GB/s)? ){5}(\\| \\d+ ms / \\d+ ms = [\\d.]+ × ){2}\\|$`, 'm'))
})

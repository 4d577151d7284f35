/** bench/gpu.sh says clearly that there is no GPU, and runs from end to end against the double. */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

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

test('with --double it dumps, restores and checks each workload', async () => {
  const { stdout } = await run(SCRIPT, ['--double', '--rounds', '1', '--mib', '16'])
  expect(stdout).toMatch(/^THE GPU IS A DOUBLE/)
  for (const name of ['add', 'memory', 'graph'])
    expect(stdout).toMatch(new RegExp(`^\\| ${name} (\\| [\\d.]+ ms(, [\\d.]+ GB/s)? ){5}(\\| \\d+ ms / \\d+ ms = [\\d.]+ × ){2}\\|$`, 'm'))
})

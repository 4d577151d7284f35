/** Containers where there is version 2 of cgroups only, as on most machines: on one with version 1 a mount namespace is given that view. */
import { execFile } from 'node:child_process'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const ONLY_V2 = 'umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec "$0" "$@"'
const FILES = ['run', 'restore', 'shim'].map((name) => `test/e2e/${name}.runc.test.ts`)
const CHOSEN = [
  'exit code is stored',
  'stands still',
  'SIGKILL of the daemon: the container goes on',
  'counts on, nothing lost',
  'under another id',
  'read-only root',
  'exec. started',
  'veth',
  'cgroup namespace',
]

interface Report {
  readonly testResults: readonly { readonly assertionResults: readonly { readonly title: string; readonly status: string }[] }[]
}

test('run, freeze, dump and restore', async (context) => {
  context.skip(existsSync('/sys/fs/cgroup/cgroup.controllers'), 'this machine has version 2 only: every other test is of it')
  const report = join(tmpdir(), `cedana-cgroup2-${process.pid}.json`)
  const vitest = ['node_modules/.bin/vitest', 'run', '--config', 'test/vitest.config.js', '--project', 'e2e', '--reporter=json']
  const argv = ['--mount', 'sh', '-c', ONLY_V2, ...vitest, `--outputFile=${report}`, ...FILES, '-t', CHOSEN.join('|')]
  try {
    await new Promise((resolve) => execFile('unshare', argv, { cwd: ROOT, maxBuffer: 1 << 24 }, resolve))
    const { testResults } = JSON.parse(readFileSync(report, 'utf8')) as Report
    const ran = testResults
      .flatMap(({ assertionResults }) => assertionResults)
      .filter(({ status }) => status !== 'skipped' && status !== 'pending')
    expect(ran.filter(({ status }) => status !== 'passed')).toEqual([])
    for (const one of CHOSEN)
      expect(
        ran.filter(({ title }) => new RegExp(one).test(title)),
        one,
      ).not.toEqual([])
  } finally {
    rmSync(report, { force: true })
  }
})

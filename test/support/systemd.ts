/** A systemd of the test's own: the first process of namespaces of processes, mounts and cgroups, with one service to do. The machine's is left alone. */
import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { until } from './wait.js'

export const SYSTEMD = '/lib/systemd/systemd'
const CGROUPS = '/sys/fs/cgroup'
const LIMIT_MS = 100_000

/** Which cgroups it sees: `legacy`, those of version 1, with its own of both. */
export type Hierarchy = 'unified' | 'legacy'
export const hasLegacyCgroups = (): boolean => existsSync(join(CGROUPS, 'memory'))

const MOUNTS: Readonly<Record<Hierarchy, string>> = {
  unified: `mount -t cgroup2 cgroup2 ${CGROUPS}`,
  legacy: [
    `mount -t tmpfs tmpfs ${CGROUPS}`,
    `for name in cpu cpuacct cpuset memory devices freezer blkio pids; do mkdir ${CGROUPS}/$name; mount -t cgroup -o $name cgroup ${CGROUPS}/$name; done`,
    `mkdir ${CGROUPS}/systemd; mount -t cgroup -o none,name=systemd cgroup ${CGROUPS}/systemd`,
  ].join('\n'),
}

const hierarchies = (): string[] =>
  existsSync(join(CGROUPS, 'cgroup.procs')) ? [CGROUPS] : readdirSync(CGROUPS).map((name) => join(CGROUPS, name))

/** A cgroup that it takes for the root. */
function makeCgroups(name: string): string[] {
  return hierarchies().map((path) => {
    mkdirSync(join(path, name))
    for (const file of ['cpuset.cpus', 'cpuset.mems'])
      if (existsSync(join(path, file))) writeFileSync(join(path, name, file), readFileSync(join(path, file)))
    return join(path, name)
  })
}

function removeCgroups(path: string): void {
  for (const entry of readdirSync(path, { withFileTypes: true })) if (entry.isDirectory()) removeCgroups(join(path, entry.name))
  rmdirSync(path)
}

const quoted = (word: string): string => `"${word.replaceAll(/["\\]/g, '\\$&').replaceAll('%', '%%').replaceAll('$', '$$$$')}"`

interface Work {
  readonly hierarchy: Hierarchy
  readonly argv: readonly [string, ...string[]]
  readonly cwd: string
  readonly environment: Readonly<Record<string, string>>
}

/** Runs the command as a service of it, and ends with that. Answers what both have said. */
export async function underSystemd({ hierarchy, argv, cwd, environment }: Work): Promise<string> {
  const name = `cedana-systemd-${process.pid}-${hierarchy}`
  const directory = join(tmpdir(), name)
  mkdirSync(directory)
  const cgroups = makeCgroups(name)
  try {
    const unit = ['[Unit]', 'DefaultDependencies=no', 'SuccessAction=exit-force', 'FailureAction=exit-force', '[Service]', 'Type=oneshot']
    const variables = Object.entries(environment).map(([key, value]) => `Environment=${quoted(`${key}=${value}`)}`)
    const service = [`WorkingDirectory=${cwd}`, ...variables, `StandardOutput=append:${directory}/log`, 'StandardError=inherit']
    const text = [...unit, ...service, `ExecStart=${argv.map(quoted).join(' ')}`, '']
    writeFileSync(join(directory, 'work.service'), text.join('\n'))
    const script = [
      'set -e',
      'mount --make-rprivate /',
      `umount -R ${CGROUPS}`,
      MOUNTS[hierarchy],
      'mount -t tmpfs tmpfs /run',
      'mount -t proc proc /proc',
      `exec env -i container=other PATH="$PATH" SYSTEMD_UNIT_PATH=${directory} ${SYSTEMD} --system --unit=work.service --log-target=console --show-status=no`,
    ]
    writeFileSync(join(directory, 'init'), script.join('\n'))
    const enter = `for path in ${cgroups.join(' ')}; do echo $$ > $path/cgroup.procs; done; exec unshare --mount --pid --fork --cgroup --kill-child sh ${directory}/init`
    const said = await new Promise<string>((resolve) => {
      execFile('sh', ['-c', enter], { maxBuffer: 1 << 24, timeout: LIMIT_MS, killSignal: 'SIGKILL' }, (_, stdout, stderr) =>
        resolve(stdout + stderr),
      )
    })
    const log = join(directory, 'log')
    return said + (existsSync(log) ? readFileSync(log, 'utf8') : '')
  } finally {
    await until('its cgroups can go', () => cgroups.every((path) => !existsSync(path) || attempt(() => removeCgroups(path))))
    rmSync(directory, { recursive: true })
  }
}

function attempt(work: () => void): boolean {
  try {
    work()
    return true
  } catch {
    return false
  }
}

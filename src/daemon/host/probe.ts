/** Facts about this machine: which CRIU, which kernel, which capabilities. Probed once, remembered by binary and boot. */
import { execFile } from 'node:child_process'
import { constants } from 'node:fs'
import { access, mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises'
import { arch, release } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { CedanaError } from '../../plugins/contract/errors.js'
import { type CriuBinary, formatVersion, parseVersion } from './criu.js'
import { ownNamespace } from './kernel.js'
import { bootId, readText } from './processes.js'

const execute = promisify(execFile)

/** Where `scripts/setup` and `plugin install criu` put the private CRIU. */
export const PRIVATE_CRIU = '/opt/cedana/criu/bin/criu'
const OLDEST_CRIU = 31600
/** From this kernel on SO_PASSCRED is refused on non-unix sockets, and CRIU before 4.2 cannot dump any TCP or UDP socket. */
const KERNEL_NEEDING_42 = [6, 16] as const

export interface CriuLocation {
  /** `criu.binary_path`; the only candidate when it is set. */
  readonly configured: string
  /** `plugins.bin_dir`. */
  readonly binDir: string
  /** $PATH */
  readonly searchPath: string
  /** Directory for what is remembered between runs. */
  readonly cacheDir: string
}

export interface HostFacts {
  readonly kernel: string
  readonly arch: string
  readonly bootId: string
  readonly capabilities: ReadonlySet<string>
  readonly cpu: { readonly vendor: string; readonly model: string; readonly flags: readonly string[] }
  readonly daemonPid: number
  readonly namespaces: Readonly<Record<'pid' | 'user' | 'mnt' | 'net' | 'cgroup', string>>
}

interface Probed {
  readonly key: string
  readonly version: number
}

async function isExecutable(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  )
}

const needs42 = (): boolean => {
  const [major = 0, minor = 0] = release().split('.').map(Number)
  return major > KERNEL_NEEDING_42[0] || (major === KERNEL_NEEDING_42[0] && minor >= KERNEL_NEEDING_42[1])
}

export const criuTooOldForKernel = (version: number): boolean => version < OLDEST_CRIU || (needs42() && version < 40200)

/** Asks the binary for its version, unless this very file was asked since the last boot. */
async function versionOf(path: string, cacheDir: string): Promise<number> {
  const file = await stat(path)
  const key = [path, file.mtimeMs, file.size, bootId].join(':')
  const cache = join(cacheDir, 'criu-version.json')
  const known = await readText(cache)
    .then((text) => (text === undefined ? undefined : (JSON.parse(text) as Probed)))
    .catch(() => undefined)
  if (known?.key === key) return known.version
  const { stdout } = await execute(path, ['--version'], { timeout: 10_000 }).catch((cause: unknown) => {
    throw new CedanaError('HOST_UNFIT', `cannot run criu at ${path}`, { cause, hint: 'check that the file is a working criu binary' })
  })
  const version = parseVersion(stdout)
  // Losing the cache costs one more question, so nobody is told when it cannot be written.
  await mkdir(dirname(cache), { recursive: true, mode: 0o700 })
    .then(() => writeFile(`${cache}.${process.pid}`, JSON.stringify({ key, version } satisfies Probed), { mode: 0o600 }))
    .then(() => rename(`${cache}.${process.pid}`, cache))
    .catch(() => undefined)
  return version
}

/**
 * The private CRIU brings its own C library, so `bin/criu` is a shell script that runs its loader. Running that loader at once spares a shell on every
 * dump and restore.
 */
async function commandOf(path: string): Promise<readonly [string, ...string[]]> {
  if (path !== PRIVATE_CRIU) return [path]
  const script = await readFile(path, 'utf8')
  const command = /^exec (\/\S+) --argv0 criu --library-path (\/\S+) (\/\S+) "\$@"$/m.exec(script)
  const [, loader, libraries, program] = command ?? []
  if (loader === undefined || libraries === undefined || program === undefined) return [path]
  return [loader, '--argv0', 'criu', '--library-path', libraries, program]
}

/**
 * The CRIU to use: the configured one, else the first that suits this kernel of plugin directory, PATH and private prefix.
 * Throws HOST_UNFIT, naming what was found.
 */
export async function findCriu(where: CriuLocation): Promise<CriuBinary> {
  const candidates = where.configured
    ? [where.configured]
    : [
        join(where.binDir, 'criu'),
        ...where.searchPath
          .split(':')
          .filter(Boolean)
          .map((dir) => join(dir, 'criu')),
        PRIVATE_CRIU,
      ]
  const unfit: string[] = []
  for (const path of new Set(candidates)) {
    if (!(await isExecutable(path))) {
      if (where.configured)
        throw new CedanaError('HOST_UNFIT', `no criu at ${path}`, { hint: 'correct criu.binary_path or CEDANA_CRIU_BINARY_PATH' })
      continue
    }
    const version = await versionOf(path, where.cacheDir)
    if (!criuTooOldForKernel(version)) return { path, command: await commandOf(path), version }
    unfit.push(`${path} is ${formatVersion(version)}`)
  }
  if (unfit.length > 0) {
    throw new CedanaError('HOST_UNFIT', `criu is too old for kernel ${release()}: ${unfit.join(', ')}`, {
      hint: needs42() ? 'this kernel needs criu 4.2 or newer: run scripts/setup, or set criu.binary_path' : 'install criu 3.16 or newer',
    })
  }
  throw new CedanaError('HOST_UNFIT', 'criu not found', { hint: 'run scripts/setup, install criu, or set criu.binary_path' })
}

const CAPABILITY_BITS: Readonly<Record<string, number>> = {
  CAP_DAC_OVERRIDE: 1,
  CAP_KILL: 5,
  CAP_NET_ADMIN: 12,
  CAP_SYS_PTRACE: 19,
  CAP_SYS_ADMIN: 21,
  CAP_SYS_RESOURCE: 24,
  CAP_CHECKPOINT_RESTORE: 40,
}

/** Effective capabilities of this process, those that checkpointing cares about. */
async function capabilities(): Promise<ReadonlySet<string>> {
  const status = await readFile('/proc/self/status', 'utf8')
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? '0'}`)
  return new Set(Object.entries(CAPABILITY_BITS).flatMap(([name, bit]) => ((effective >> BigInt(bit)) & 1n ? [name] : [])))
}

export async function hostFacts(): Promise<HostFacts> {
  const cpuinfo = await readFile('/proc/cpuinfo', 'utf8')
  const first = (key: string): string => new RegExp(`^${key}\\s*:\\s*(.*)$`, 'm').exec(cpuinfo)?.[1] ?? ''
  return {
    kernel: release(),
    arch: arch(),
    bootId,
    capabilities: await capabilities(),
    cpu: {
      vendor: first('vendor_id'),
      model: first('model name'),
      flags: (first('flags') || first('Features')).split(' ').filter(Boolean),
    },
    daemonPid: process.pid,
    namespaces: {
      pid: ownNamespace('pid'),
      user: ownNamespace('user'),
      mnt: ownNamespace('mnt'),
      net: ownNamespace('net'),
      cgroup: ownNamespace('cgroup'),
    },
  }
}

const SELFTEST_MS = 90_000
export const CRIU_SELFTEST = fileURLToPath(new URL('../../../scripts/criu-selftest', import.meta.url))

export interface SelfTest {
  readonly outcome: 'passed' | 'failed' | 'not tried'
  readonly reason: string
  readonly ms: number
}

/** A round trip: a process with threads, a pipe, a timer, a memfd and a listening socket is dumped, restored, and asked whether it goes on. */
export async function criuSelfTest(path: string): Promise<SelfTest> {
  const started = performance.now()
  const done = (outcome: SelfTest['outcome'], reason = ''): SelfTest => ({ outcome, reason, ms: performance.now() - started })
  if (process.geteuid?.() !== 0) return done('not tried', 'only root can dump and restore')
  return execute(CRIU_SELFTEST, [path], { timeout: SELFTEST_MS }).then(
    () => done('passed'),
    (thrown: unknown) => {
      const { code, stderr = '', message } = thrown as { readonly code?: number; readonly stderr?: string; readonly message: string }
      if (code === 127) return done('not tried', 'python3 is not installed')
      return done('failed', stderr.trim().split('\n').at(-1) || message)
    },
  )
}

/** Runs `criu check`, whose lines say what the kernel lacks. */
export async function criuCheck(
  criu: CriuBinary,
): Promise<{ readonly ok: boolean; readonly warnings: readonly string[]; readonly errors: readonly string[] }> {
  const { ok, text } = await execute(criu.path, ['check'], { timeout: 30_000 }).then(
    (done) => ({ ok: true, text: done.stdout + done.stderr }),
    (thrown: unknown) => {
      const failed = thrown as { readonly stdout?: string; readonly stderr?: string }
      return { ok: false, text: (failed.stdout ?? '') + (failed.stderr ?? '') }
    },
  )
  const lines = text.split('\n').map((line) => line.replace(/^\(\d+\.\d+\)\s*/, '').trim())
  return {
    ok,
    warnings: lines.filter((line) => line.startsWith('Warn')),
    errors: lines.filter((line) => line.startsWith('Error')),
  }
}

/** The options CRIU is asked with: what holds for every tree, what the runtime adds, what the user insists on. Pure. */
import { CedanaError } from '../../plugins/contract/errors.js'
import { externalKey, type Caller, type OpenFile, type ProcessFacts, type Snapshot, type StdioMode } from '../../plugins/contract/job.js'
import type { Command, CriuOptions, Inherit } from '../../plugins/contract/plan.js'
import { controllingTerminals } from '../images/preflight.js'

/** A field of criu_opts as the linked libcriu describes it. */
export interface OptionField {
  readonly name: string
  readonly type: string
  readonly repeated: boolean
}

/** Largest deleted file that is copied into the images. */
const GHOST_LIMIT_BYTES = 800 * 1024 * 1024

export const CGROUP_MODES: Readonly<Record<string, string>> = {
  ignore: 'IGNORE',
  none: 'CG_NONE',
  props: 'PROPS',
  soft: 'SOFT',
  full: 'FULL',
  strict: 'STRICT',
  default: 'DEFAULT',
}

/** True for every dump and restore. `cgroups`: a key of CGROUP_MODES. */
export function baseOptions(cgroups: string, logLevel: number, logFile: string): CriuOptions {
  return {
    log_level: logLevel,
    log_file: logFile,
    ghost_limit: GHOST_LIMIT_BYTES,
    evasive_devices: true,
    manage_cgroups: true,
    manage_cgroups_mode: CGROUP_MODES[cgroups] ?? 'IGNORE',
  }
}

/** Later ones win; lists append. */
export function mergeOptions(...all: readonly CriuOptions[]): CriuOptions {
  const merged: Record<string, unknown> = {}
  for (const [name, value] of all.flatMap((options) => Object.entries(options))) {
    if (value === undefined) continue
    const before = merged[name]
    merged[name] = Array.isArray(before) && Array.isArray(value) ? [...(before as unknown[]), ...(value as unknown[])] : value
  }
  return merged
}

/** What cedana decides itself: another target, other files or programs to run are not options of a dump. */
const RESERVED: ReadonlySet<string> = new Set([
  'pid',
  'images_dir',
  'images_dir_fd',
  'work_dir_fd',
  'log_file',
  'log_to_stderr',
  'notify_scripts',
  'ps',
  'exec_cmd',
  'config_file',
  'rst_sibling',
  'inherit_fd',
  'root',
  'stream',
  'status_fd',
  'parent_img',
  'lazy_pages',
  'cgroup_yard',
  'unprivileged',
  'pidfd_store_sk',
  'pre_dump_mode',
  'service_address',
])

/** What users other than root may choose as well: nothing that names files, namespaces or programs of the machine. */
const HARMLESS: ReadonlySet<string> = new Set([
  'tcp_established',
  'tcp_close',
  'tcp_skip_in_flight',
  'ext_unix_sk',
  'shell_job',
  'file_locks',
  'link_remap',
  'ghost_limit',
  'log_level',
  'evasive_devices',
  'timeout',
  'leave_stopped',
  'force_irmap',
  'weak_sysctls',
  'skip_file_rwx_check',
  'network_lock',
])

/** --criu-opts: a JSON object of criu_opts fields; names that CRIU does not know, or that are not the caller's to choose, are refused. */
export function parseCriuOpts(text: string, fields: readonly OptionField[], caller: Pick<Caller, 'uid'>): CriuOptions {
  if (text === '') return {}
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch (cause) {
    throw new CedanaError('BAD_OPTIONS', `Error parsing CRIU options JSON: ${(cause as Error).message}`, { cause })
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
    throw new CedanaError('BAD_OPTIONS', 'Error parsing CRIU options JSON: expected an object such as {"tcp_close": true}')
  }
  for (const name of Object.keys(parsed)) {
    if (RESERVED.has(name)) {
      throw new CedanaError('BAD_OPTIONS', `--criu-opts may not set ${name}: cedana decides it itself`, {
        hint: 'see the flags of the command',
      })
    }
    if (fields.some((field) => field.name === name)) {
      if (caller.uid === 0 || HARMLESS.has(name)) continue
      throw new CedanaError('PERMISSION_DENIED', `only root may set ${name} in --criu-opts`)
    }
    const near = fields.find((field) => field.name.replaceAll('_', '') === name.replaceAll(/[-_]/g, '').toLowerCase())
    throw new CedanaError('BAD_OPTIONS', `Error parsing CRIU options JSON: unknown option ${name}`, {
      hint: near ? `did you mean ${near.name}?` : 'names are those of criu_opts in CRIU’s rpc.proto, such as ghost_limit or tcp_close',
    })
  }
  return parsed as CriuOptions
}

/** CRIU's name of a descriptor in --external and inherit_fd. */
function descriptorKey(file: OpenFile): string {
  if (file.isTty) return externalKey(file)
  return file.path.startsWith('/') ? file.path.slice(1) : file.path
}

const standardStreams = (root: ProcessFacts | undefined): readonly OpenFile[] => (root?.files ?? []).filter((file) => file.fd <= 2)

/** A terminal that the shim holds the other side of: CRIU must not look for its master in the tree. */
export function externalTerminal(snapshot: Snapshot, stdio: StdioMode): CriuOptions {
  if (stdio !== 'tty') return {}
  const terminals = standardStreams(snapshot.processes[0]).filter((file) => file.isTty)
  return { external: [...new Set([...terminals, ...controllingTerminals(snapshot)].map(descriptorKey))] }
}

/**
 * Which new descriptors take the place of the standard streams that the tree had when it was dumped.
 * Throws TARGET_UNFIT when a terminal would be needed and none is offered.
 */
export function stdioInherits(snapshot: Snapshot, mode: StdioMode): readonly Inherit[] {
  const slots = {
    // CRIU takes a descriptor away with each key that it serves.
    log: [undefined, 'log', 'logCopy'],
    pipe: ['stdin', 'stdout', 'stderr'],
    tty: ['tty', 'tty', 'tty'],
    inherit: ['stdin', 'stdout', 'stderr'],
    none: [undefined, undefined, undefined],
  } as const
  const inherits = new Map<string, Inherit>()
  for (const file of standardStreams(snapshot.processes[0])) {
    const slot = slots[mode][file.fd]
    if (file.isTty && mode !== 'tty' && mode !== 'inherit') {
      throw new CedanaError(
        'TARGET_UNFIT',
        `found open file ${file.path} with fd ${file.fd} which is a TTY and so restoring will fail because there is no TTY to inherit`,
        {
          hint: 'restore with --tty, or with --no-server from a terminal',
        },
      )
    }
    // The terminal of the caller is taken over by CRIU itself (shell_job); /dev/null stays what it is.
    if (slot === undefined || (file.isTty && mode === 'inherit') || file.path === '/dev/null' || file.type === 'socket') continue
    const key = descriptorKey(file)
    if (!inherits.has(key)) inherits.set(key, { key, from: { stdio: slot } })
  }
  if (mode === 'tty') {
    for (const key of controllingTerminals(snapshot).map(descriptorKey)) inherits.set(key, { key, from: { stdio: 'ttyCopy' } })
  }
  return [...inherits.values()]
}

/** Decided by the program that runs CRIU. */
const OF_PROGRAM: ReadonlySet<string> = new Set(['log_level', 'log_file', 'manage_cgroups', 'manage_cgroups_mode'])
const STREAM_FDS: Readonly<Record<string, number>> = { stdin: 0, stdout: 1, stderr: 2 }

interface CgroupRoot {
  readonly ctrl?: string
  readonly path: string
}

/**
 * The same as a configuration file of CRIU (criu(8), "CONFIGURATION FILES"), which it reads when $CRIU_CONFIG_FILE names it: for a CRIU that somebody
 * else asks. `inherit`: standard streams, and what `openInherited` has opened.
 */
export function configFile(options: CriuOptions, inherit: readonly Inherit[]): string {
  const lines = Object.entries(options).flatMap(([name, value]): string[] => {
    const flag = name.replaceAll('_', '-')
    if (OF_PROGRAM.has(name) || value === undefined || value === false) return []
    if (value === true) return [flag]
    if (name === 'cg_root')
      return (value as readonly CgroupRoot[]).map(({ ctrl, path }) => `cgroup-root ${ctrl === undefined ? '' : `${ctrl}:`}${path}`)
    return (Array.isArray(value) ? (value as unknown[]) : [value]).map((one) => `${flag} ${String(one)}`)
  })
  const opened = openedIn(inherit).map(({ key }, index) => `inherit-fd fd[${FIRST_OPENED + index}]:${key}`)
  const streams = inherit.flatMap(({ key, from }) => ('stdio' in from ? [`inherit-fd fd[${STREAM_FDS[from.stdio] ?? 0}]:${key}`] : []))
  return [...lines, ...opened, ...streams].map((line) => `${line}\n`).join('')
}

/** After the standard streams and the socket that CRIU is asked by; a shell knows descriptors of one digit. */
const FIRST_OPENED = 4
const MAX_OPENED = 6

function openedIn(inherit: readonly Inherit[]): readonly { readonly key: string; readonly path: string }[] {
  const opened = inherit.flatMap(({ key, from }) => ('path' in from ? [{ key, path: from.path }] : []))
  if (opened.length > MAX_OPENED) throw new CedanaError('BUG', `${opened.length} files to be opened for CRIU`)
  return opened
}

/** What a shell that becomes such a CRIU opens for it, to be read and written. */
export const openInherited = (inherit: readonly Inherit[]): string =>
  openedIn(inherit)
    .map(({ path }, index) => `exec ${FIRST_OPENED + index}<>${quote(path)}\n`)
    .join('')

const quote = (word: string): string => (/^\$[A-Z_]+$/.test(word) ? `"${word}"` : `'${word.replaceAll("'", "'\\''")}'`)
const shell = (argv: readonly string[]): string => argv.map(quote).join(' ')

/** Files by which a tree that is built and stands still is asked for, and let run. */
export interface Gate {
  /** Has the PID of its root, when it is there. */
  readonly built: string
  /** Says that it may run, or with `.not` that it may not. */
  readonly open: string
  /** The process that is to say it: when it is gone, the tree may not run. */
  readonly keeper: number
}

/**
 * An action script of CRIU (criu(8), --action-script), which runs it at each stage. The commands are for the moment when the namespaces are there.
 */
export function actionScript(commands: readonly Command[], { built, open, keeper }: Gate): string {
  // What is there at the start decides: the first command of several that make one thing makes the condition of the others true.
  const conditions = [...new Set(commands.flatMap(({ unless }) => (unless ? [shell(unless)] : [])))]
  const tests = conditions.map((condition, index) => `made${index}=false; ${condition} >/dev/null 2>&1 && made${index}=true`)
  const lines = commands.map(({ argv, unless }) =>
    unless ? `$made${conditions.indexOf(shell(unless))} || ${shell(argv)} || exit 1` : `${shell(argv)} || exit 1`,
  )
  const wait = `while kill -0 ${keeper}; do [ ! -e ${quote(open)} ] || exit 0; [ ! -e ${quote(`${open}.not`)} ] || exit 1; sleep 0.01; done; exit 1`
  const tell = `echo "$CRTOOLS_INIT_PID" > ${quote(built)}`
  const stages = ['case "$CRTOOLS_SCRIPT_ACTION" in', 'setup-namespaces) ;;', `post-restore) ${tell}; ${wait} ;;`, '*) exit 0 ;;', 'esac']
  return ['#!/bin/sh', ...stages, ...tests, ...lines, ''].join('\n')
}

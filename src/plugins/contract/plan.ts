/** Plans: data that says how. Pure to make, printable with --dry-run, carried out by the daemon alone. */
import type { Caller, IdSet, StdioMode } from './job.js'
import type { ParsedOptions } from './options.js'

/**
 * Options of one CRIU request: field names of `criu_opts` in CRIU's rpc.proto (snake_case).
 * 64-bit values as decimal text. Unknown names are refused by the daemon before CRIU is asked.
 */
export type CriuOptions = Readonly<Record<string, unknown>>

export const SEVERITIES = ['error', 'warning'] as const

/** Something known beforehand to go wrong (`error`: the operation is refused) or to be worth knowing (`warning`). */
export interface Problem {
  readonly severity: (typeof SEVERITIES)[number]
  /** Stable identifier, kebab-case: `io-uring`, `pid-in-use`, `file-changed`. */
  readonly id: string
  /** Lower case, names the thing. */
  readonly message: string
  readonly hint?: string
  readonly pid?: number
}

/** A small file that a plugin puts beside CRIU's images. Never page data. */
export interface Attachment {
  readonly name: string
  readonly content: Uint8Array
}

/**
 * Attachments of a container's dump that other programs look for in a checkpoint, which with them can be exported: ContainerDump as JSON, and its
 * configuration (config.json of the OCI runtime specification).
 */
export const CONFIG_DUMP = 'config.dump'
export const SPEC_DUMP = 'spec.dump'

/** What podman, CRI-O and containerd call what they know of a container. */
export interface ContainerDump {
  readonly id: string
  readonly name: string
  /** `runc`, `io.containerd.runc.v2`. */
  readonly runtime: string
  /** RFC 3339. */
  readonly createdTime: string
  /** Of the image it was made of, where it was made of one: `docker.io/library/nginx:latest`, and its digest. */
  readonly rootfsImageName?: string
  readonly rootfsImageRef?: string
}

export interface DumpPlan {
  readonly criu: CriuOptions
  readonly attachments: readonly Attachment[]
  /** Call the verb `save` while the tree stands still: `also`; or `only` that, and leave the processes out. */
  readonly save?: 'also' | 'only'
  readonly problems: readonly Problem[]
}

/**
 * A descriptor that CRIU puts in place of one it finds in the images under `key`
 * (`pipe:[INODE]`, `tty[RDEV:DEV]`, `file[MOUNT:INODE]`, a path without its leading slash, `extRootNetNS` …).
 */
export interface Inherit {
  readonly key: string
  readonly from:
    | { readonly stdio: 'stdin' | 'stdout' | 'stderr' | 'log' | 'logCopy' | 'tty' | 'ttyCopy' }
    | { readonly path: string; /** open(2) flags */ readonly flags: number }
}

/** `unless`: not when this command succeeds. Words may be variables of CRIU's action scripts, `$CRTOOLS_INIT_PID`, by themselves. */
export interface Command {
  readonly argv: readonly string[]
  readonly unless?: readonly string[] | undefined
}

/**
 * Of a program that is not the target itself but starts it and ends (`runc run --detach`): with 0 when the target runs, which is then nobody's
 * child, and the job's from then on. Paths are in the directory of the job.
 */
export interface Launcher {
  /** Where it writes the PID of the target. */
  readonly pidFile: string
  /** With a terminal: where it sends the other side of it, as runc does. */
  readonly consoleSocket?: string | undefined
  /** Where it says why it failed: lines of JSON with `msg`. */
  readonly log: string
  /** The target is the child of another, and is not started before it has been announced (see `LaunchContext`). */
  readonly foreign?: boolean | undefined
}

/** A program to start as a job: the daemon starts it through the shim. */
export interface Program {
  readonly argv: readonly [string, ...string[]]
  readonly environment: Readonly<Record<string, string>>
  readonly workingDirectory: string
  readonly user: Pick<Caller, 'uid' | 'gid' | 'groups'>
  /** Without one, `argv` is the target. */
  readonly launcher?: Launcher | undefined
  /**
   * The launcher is the plugin itself: a process of its own, which the daemon's end does not end, calls the verb `launch` with this. `argv` then only
   * says what is started.
   */
  readonly launch?: ParsedOptions | undefined
  /** Small files to be put into the directory of the job first, by their paths in it. */
  readonly files?: readonly Attachment[] | undefined
  /** What it gets for standard streams where that is not what was asked for; `log`: the file, absent for the job's. */
  readonly streams?: { readonly stdio: StdioMode; readonly log?: string | undefined } | undefined
  /** The options of `resolve` that name the target from now on; absent: those of `run`. */
  readonly identity?: ParsedOptions | undefined
  /** As many of the caller's descriptors after 2 are its own too (without a daemon); at most 6. */
  readonly preserveFds?: number | undefined
  /** A program that stays with the target (without a daemon) writes the target's PID there. */
  readonly pidFile?: string | undefined
}

export interface RunPlan extends Program {
  readonly problems: readonly Problem[]
}

export interface RestorePlan {
  readonly criu: CriuOptions
  readonly inherit: readonly Inherit[]
  readonly problems: readonly Problem[]
  /** The target has a mount namespace of its own: this directory becomes its root, in place of what was mounted there at the dump. */
  readonly root?: string | undefined
  /**
   * The runtime's own program has CRIU restore the target, in the surroundings that it makes: the daemon starts the program instead of CRIU.
   * `criu` and `inherit` (of standard streams, and of a few paths, which are opened for both ways) reach CRIU by its configuration file.
   */
  readonly program?: Program | undefined
  /**
   * Run when the namespaces of the target are there and nothing is in them; one that fails is the failure of the restore. Absent: the program's CRIU
   * cannot run commands here.
   */
  readonly setup?: readonly Command[] | undefined
}

export type { IdSet, StdioMode }

/** CRIU's log in plain words: which line was the cause, what it means, what to do about it. */

export interface Cause {
  /** Stable, kebab-case. */
  readonly id: string
  /** Lower case, no full stop. */
  readonly message: string
  readonly hint: string
}
export interface Explanation {
  /** The first error lines that say something, without time and indentation. */
  readonly lines: readonly string[]
  /** undefined: not a known one. */
  readonly cause: Cause | undefined
}

interface Rule {
  readonly id: string
  readonly when: RegExp
  /** `$1`, `$2`: what the expression captured. */
  readonly message: string
  readonly hint: string
}

/** Every expression was written against a log that CRIU 4.2.1 produced, or that its users reported; test/fixtures/criu-logs has them. */
const RULES: readonly Rule[] = [
  {
    id: 'other-user',
    when: /Can't get rlimit \d+: Operation not permitted|Can't [gs]et rlimit.*EPERM/i,
    message: 'CRIU may not read the limits of a process of another user: it lacks CAP_SYS_RESOURCE',
    hint: 'give cedana CAP_SYS_RESOURCE, or run the program as root',
  },
  {
    id: 'criu-too-old',
    when: /Can't get 1:\d+ opt/,
    message: 'this CRIU is too old for the running kernel: it cannot read the options of a socket',
    hint: 'install CRIU 4.2 or newer',
  },
  {
    id: 'io-uring',
    when: /anon_inode:\[io_uring\]|io_uring|Can't retrieve FDs from socket|send_fds failed \(-22\)/,
    message: 'a process holds a descriptor that CRIU cannot take over, which is io_uring in nearly every case',
    hint: 'start the program without io_uring (UV_USE_IO_URING=0 for Node, io-threads or uring settings elsewhere)',
  },
  {
    id: 'pid-in-use',
    when: /Can't fork for (\d+): File exists|Pid (\d+) do(?:es)? not match expected/,
    message: 'process id $1 is in use',
    hint: 'end the process that has it (see ps -p), or wait until its parent has reaped it',
  },
  {
    id: 'pid-in-use',
    when: /Unable to create a thread: -17/,
    message: 'the id of a thread is in use',
    hint: 'end the process that has it (see ps -eLf), or wait a moment',
  },
  {
    id: 'session-outside',
    when: /The root process (\d+) is not a session leader/,
    message: 'process $1 belongs to the session of a shell that is not part of the dump',
    hint: 'use --shell-job',
  },
  {
    id: 'session-outside',
    when: /A session leader of (\d+)\(\d+\) is outside of its pid namespace|Can't find (?:session|group) leader|leader .* outside/i,
    message: 'the leader of a session or process group is outside of the dumped tree',
    hint: 'dump from its parent on, or use --shell-job',
  },
  {
    id: 'terminal-outside',
    when: /Found slave peer index (\d+) without correspond master peer|Found dangling tty/,
    message: 'a process has terminal pts/$1 open whose other side is not part of the dump',
    hint: 'use --shell-job, or start the program as a job with --tty or without a terminal',
  },
  {
    id: 'terminal-missing',
    when: /Don't have tty to inherit session from/,
    message: 'the checkpoint needs a terminal and there is none',
    hint: 'restore it from a terminal with --no-server, or with --attach',
  },
  {
    id: 'terminal-missing',
    when: /Deprecated functionality \(TTY w\/o regfile\)/,
    message: 'the checkpoint was made with a terminal from outside (--external tty[…]) and none was given for it',
    hint: 'restore it as the job it was, with --attach',
  },
  {
    id: 'terminal-index-in-use',
    when: /Can't (?:open|restore).*pts.*index|Unable to open .*pts\/(\d+)/i,
    message: 'the number of a terminal is taken',
    hint: 'close the other terminal, or restore with --attach',
  },
  {
    id: 'tcp-in-flight',
    when: /In-flight connection/,
    message: 'a listening TCP socket has connections nobody has accepted yet',
    hint: 'use --skip-in-flight, the clients will have to connect again',
  },
  {
    id: 'tcp-established',
    when: /Connected TCP socket(?:, consider| in image)/,
    message: 'there is a connected TCP socket',
    hint: 'use --tcp-established, or --tcp-close to leave the connections out',
  },
  {
    id: 'network-lock',
    when: /Iptables configuration failed|Failed to lock TCP connection|(?:nft|iptables)[^\n]*(?:not found|No such file)|Can't lock network/,
    message: 'CRIU could not hold the network still: iptables is missing or refuses',
    hint: 'install iptables, or use --criu-opts \'{"network_lock":"NFTABLES"}\'',
  },
  {
    id: 'external-unix-socket',
    when: /External socket is used|Can't dump half of stream unix connection|Unix socket .* without peer|external stream connections/i,
    message: 'a unix socket is connected to a process that is not part of the dump',
    hint: 'close the connection before the dump, dump both ends, or name it with --external unix[INODE]',
  },
  {
    id: 'file-locks',
    when: /Some file locks are hold by dumping tasks/,
    message: 'a process holds file locks',
    hint: 'use --file-locks',
  },
  {
    id: 'ghost-file-too-large',
    when: /Can't dump ghost file (\S+) of (\d+) size/,
    message: 'deleted file $1 is open and has $2 bytes, more than goes into a checkpoint',
    hint: 'raise the limit with --criu-opts \'{"ghost_limit":BYTES}\'',
  },
  {
    id: 'link-remap',
    when: /Can't create link remap for (\S+?)\.? Use link-remap option/,
    message: '$1 was deleted under the name a process has open, and exists under another',
    hint: 'use --link-remap',
  },
  {
    id: 'mount-source',
    when: /Failed to move_mount from (\S+) to/,
    message: '$1 cannot be mounted again',
    hint: 'it has to be there, and the bundle has to name the path itself: CRIU does not follow a symbolic link',
  },
  {
    id: 'mount-outside',
    when: /Can't lookup mount=(\d+) for fd=(-?\d+) path=(\S+)/,
    message: 'descriptor $2 ($3) is on a mount that the process does not see itself',
    hint: 'redirect the descriptor to a file the process sees, or name it with --external file[MOUNT:INODE]',
  },
  {
    id: 'pidfd-outside',
    when: /pidfd pid (\d+) is not a part of process tree/,
    message: 'a process holds a pidfd of process $1, which is not part of the dump',
    hint: 'dump both, or close the pidfd',
  },
  {
    id: 'sysv-ipc',
    when: /Task (\d+) with SysVIPC shmem map .* doesn't live in IPC ns/,
    message: "process $1 has System V shared memory of the host's IPC namespace",
    hint: 'start the program in an IPC namespace of its own (unshare -i)',
  },
  {
    id: 'nested-pid-namespace',
    when: /Can't dump nested pid namespace for (\d+)/,
    message: 'process $1 has children in another PID namespace',
    hint: 'dump the first process inside that namespace',
  },
  {
    id: 'tun',
    when: /Net namespace is required to dump tun link/,
    message: "a process holds a tun device of the host's network namespace",
    hint: 'start the program in a network namespace of its own',
  },
  {
    id: 'corked-socket',
    when: /Can't dump corked dgram socket/,
    message: 'a UDP socket holds unsent data (UDP_CORK)',
    hint: 'try again when the program has sent it',
  },
  {
    id: 'socket-kind',
    when: /Unknown socket collected \(family (\d+)\)|Unsupported socket|unsupported proto/i,
    message: 'a process has a socket of a kind that CRIU cannot dump (address family $1)',
    hint: 'close it before the dump',
  },
  {
    id: 'device',
    when: /Can't dump file (\d+) of that type \[\d+\] \((chr|blk) ([\d:]+)\)/,
    message: 'descriptor $1 is a device that CRIU cannot dump ($2 $3)',
    hint: 'close it before the dump; where GPUs have other paths, set gpu.device_prefix',
  },
  {
    id: 'descriptor-kind',
    when: /Can't dump file (\d+) of that type \[\d+\] \((?:anon )?(?:anon_inode:)?([^)]+)\)/,
    message: 'descriptor $1 is of a kind that CRIU cannot dump: $2',
    hint: 'close it before the dump',
  },
  {
    id: 'fsnotify',
    when: /Can't dump that (\S+)|fsnotify:.*(?:Can't|Handle)/,
    message: 'a file watch (inotify or fanotify) cannot be dumped',
    hint: 'close the watch before the dump; use --criu-opts \'{"force_irmap":true}\' where the watched file has no handle',
  },
  {
    id: 'no-such-key',
    // CRIU takes the key for a path and cuts its first letter off.
    when: /Can't open file (ile\[[^\]]+\])/,
    message: 'the checkpoint needs f$1 from outside (--external at the dump), and nothing was given for it',
    hint: 'the process or container that holds that file has to be there at the restore',
  },
  {
    id: 'file-missing',
    when: /Can't open file (\S+?)(?: on restore)?: No such file or directory/,
    message: 'file /$1 does not exist',
    hint: 'put it back where it was at the dump',
  },
  {
    id: 'file-size',
    when: /File (\S+) has bad size (\d+) \(expect (\d+)\)/,
    message: 'file /$1 has $2 bytes now and had $3 at the dump',
    hint: 'put back the file as it was at the dump',
  },
  {
    id: 'file-mode',
    when: /File (\S+) has bad mode (\S+) \(expect (\S+)\)/,
    message: 'file /$1 has mode $2 now and had $3 at the dump',
    hint: 'put back the mode, or use --criu-opts \'{"skip_file_rwx_check":true}\'',
  },
  {
    id: 'file-changed',
    when: /File (\S+) has bad build-ID/,
    message: 'program or library /$1 was replaced by another build',
    hint: 'install the version that was there at the dump',
  },
  {
    id: 'port-in-use',
    when: /Can't bind inet socket.*Address already in use/,
    message: 'a port that the checkpoint listens on is in use',
    hint: 'stop the program that has it (see ss -ltnp)',
  },
  {
    id: 'address-gone',
    when: /Can't bind inet socket.*Cannot assign requested address/,
    message: 'an address that the checkpoint listens on does not belong to this machine',
    hint: 'add the address to an interface, or restore in a network namespace that has it',
  },
  {
    id: 'unix-path-in-use',
    when: /Can't bind id \S+ ino \d+ addr (\S+): Address already in use/,
    message: 'unix socket path $1 is taken',
    hint: 'remove or move what is there',
  },
  {
    id: 'missing-plugin',
    when: /Missing required plugin:? ?(\S*)/,
    message: 'the checkpoint was made with a CRIU plugin that is not installed here ($1)',
    hint: 'install the plugin',
  },
  {
    id: 'cpu',
    when: /(?:CPU|cpu:).*(?:not supported|mismatch|incompatible|capabilit|does(?:n't| not) (?:match|have))|xsave.*(?:exceed|size)/i,
    message: 'this CPU lacks a feature that the dumped processes may be using',
    hint: 'restore on a machine with the same CPU features, or use --criu-opts \'{"cpu_cap":0}\' at your own risk',
  },
  {
    id: 'no-space',
    when: /No space left on device|Disk quota exceeded/,
    message: 'there is no space left where the checkpoint is written',
    hint: 'free some space or choose another directory with --dir',
  },
  {
    id: 'image-corrupt',
    when: /Unexpected EOF on|Read \d+ bytes while \d+ expected|Head magic doesn't match|Can't read (?:pages data|async pr bytes|mapping page)|Failed unpacking object|Unknown image/,
    message: 'an image file is missing, truncated or damaged',
    hint: 'use another checkpoint; check this one with cedana checkpoint verify',
  },
  {
    id: 'no-memory',
    when: /Unable to reserve memory|Cannot allocate memory|Can't (?:mmap|map|remap)[^\n]*(?:memory|vma|premmaped)|\bmmap\b[^\n]*failed/i,
    message: 'there was not enough memory, or the memory layout of the process cannot be made here',
    hint: 'free memory or raise the limits; another kernel or vm.mmap_min_addr can be the reason too',
  },
  {
    id: 'vdso',
    when: /vdso/i,
    message: "the kernel's vDSO differs too much from the one at the dump",
    hint: 'restore on a kernel as at the dump',
  },
  {
    id: 'security-module',
    when: /\bLSM\b|selinux|apparmor/i,
    message: 'the security profile (AppArmor or SELinux) of the process cannot be read or set',
    hint: 'load the profile on this machine, or choose another with --criu-opts \'{"lsm_profile":"…"}\'',
  },
  {
    id: 'seccomp',
    when: /seccomp/i,
    message: 'the seccomp filter of a process cannot be dumped or restored',
    hint: 'CRIU needs CAP_SYS_ADMIN in the initial user namespace for it',
  },
  {
    id: 'cgroup',
    when: /\bcg(?:roup)?\b[^\n]*(?:Can't|fail|Unable|No such)|(?:Can't|fail|Unable)[^\n]*cgroup/i,
    message: 'the cgroups of the checkpoint cannot be made or entered here',
    hint: 'use --criu-opts \'{"manage_cgroups_mode":"IGNORE"}\'',
  },
  {
    id: 'not-seizable',
    when: /Unable to (?:interrupt|seize|detach from)(?: task:)? (\d+)|(\d+) is being traced|Zombie found|is zombie/i,
    message: 'process $1 cannot be stopped: it is gone, a zombie, a kernel thread, or traced by a debugger',
    hint: 'detach the debugger or strace; a process that ended cannot be dumped',
  },
  {
    id: 'restored-process-died',
    when: /\d+ (?:killed by signal (\d+)|exited, status=\d+)/,
    message: 'a process ended while it was restored',
    hint: 'verify the checkpoint with cedana checkpoint verify; the log may say more with criu.log_level 4',
  },
  {
    id: 'criu-rights',
    when: /CRIU needs to have the CAP_SYS_ADMIN|Operation not permitted|Permission denied/,
    message: 'CRIU lacks rights for that',
    hint: 'run the daemon as root, with all capabilities',
  },
]

/** True of every log, or the echo of an error further up. */
const NOISE =
  /Can't setup RLIMIT_NOFILE|(?:Dumping|Restoring|Pre-dumping) FAILED|failed with -\d+$|Unable to open fd=|`- Can't open vma|exited, status=|Close the control socket|Message reply from daemon is trimmed|Can't open cwd|Can't dump page with parasite|cgroupd: recv req error/
const MAX_LINES = 3

/** `(00.012345)  1234: Error (criu/x.c:1): text` → `Error (criu/x.c:1): text`. */
const bare = (line: string): string =>
  line
    .replace(/^\(\d+\.\d+\)\s*/, '')
    .replace(/^\s*(?:pie: )?\d+: /, '')
    .trim()

export function explainCriuLog(text: string): Explanation {
  const said = text.split('\n').map(bare)
  const errors = said.filter((line) => /^Error\b/.test(line) || /^CRIU needs/.test(line))
  const causal = errors.filter((line) => !NOISE.test(line))
  // CRIU reports some refusals as a warning, and the error that follows from it says less.
  const warnings = said.filter((line) => /^Warn\b/.test(line))
  const lines = [...new Set(causal.length > 0 ? causal : errors.filter((line) => !/RLIMIT_NOFILE/.test(line)))].slice(0, MAX_LINES)
  return {
    lines,
    cause: findCause([...causal, ...errors.filter((line) => !causal.includes(line) && !/RLIMIT_NOFILE/.test(line)), ...warnings]),
  }
}

/** The first line that any rule knows: later lines are consequences. */
function findCause(lines: readonly string[]): Cause | undefined {
  for (const line of lines) {
    for (const rule of RULES) {
      const match = rule.when.exec(line)
      if (match) return { id: rule.id, message: fill(rule.message, match), hint: rule.hint }
    }
  }
  return undefined
}

const fill = (message: string, match: RegExpExecArray): string =>
  message.replace(/\$(\d)/g, (_, index: string) => match[Number(index)] ?? '?')

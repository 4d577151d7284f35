/**
 * The test programs that take part in "dump, then restore, then verify", with what CRIU 4.2.1 on Linux 6.18 makes of them. Everything here was first
 * tried with plain `criu dump` and `criu restore` (test/e2e/plain-criu.test.ts), so a failure across cedana is cedana's.
 */
export interface Program {
  readonly name: string
  readonly args?: readonly string[]
  /** Flags of both dump and restore; criu and cedana call them the same. */
  readonly flags?: readonly string[]
  /** Needs this capability of the host. */
  readonly capability?: string
  /**
   * CRIU cannot: cedana refuses beforehand, the program goes on, and the message matches. `plain` says what CRIU itself does:
   * it fails, or it loses state without a word.
   */
  readonly refused?: { readonly plain: 'fails' | 'loses'; readonly message: RegExp }
}

export const PROGRAMS: readonly Program[] = [
  { name: 'advised' },
  { name: 'advised', args: ['aio'] },
  { name: 'children' },
  { name: 'credentials', capability: 'CAP_SYS_RESOURCE' },
  { name: 'deleted' },
  { name: 'deleted-cwd' },
  { name: 'environment', args: ['one', 'two words', ''] },
  { name: 'epoll' },
  { name: 'eventfd' },
  { name: 'fd-passing' },
  { name: 'files' },
  { name: 'futex' },
  { name: 'hardlink', flags: ['--link-remap'] },
  { name: 'inotify' },
  { name: 'locks', flags: ['--file-locks'] },
  { name: 'mappings' },
  { name: 'memfd' },
  { name: 'memory', args: ['16', 'random'] },
  { name: 'memory', args: ['16', 'zero'] },
  { name: 'memory', args: ['16', 'half'] },
  { name: 'pipes' },
  { name: 'pty' },
  { name: 'regions' },
  { name: 'seccomp' },
  { name: 'signals' },
  { name: 'sleep' },
  { name: 'tcp-listen' },
  { name: 'tcp-pair', flags: ['--tcp-established'] },
  { name: 'threads' },
  { name: 'timers' },
  { name: 'tree' },
  { name: 'udp' },
  { name: 'unix-sockets' },

  { name: 'uring', refused: { plain: 'fails', message: /io_uring/ } },
  { name: 'sysv', refused: { plain: 'fails', message: /System V|SysV/i } },
  { name: 'eventfd-semaphore', refused: { plain: 'loses', message: /eventfd.*semaphore|semaphore.*eventfd/i } },
]

export const titleOf = ({ name, args = [], flags = [] }: Program): string =>
  [name, ...args.map((arg) => (/^\w+$/.test(arg) ? arg : JSON.stringify(arg))), ...flags].join(' ')

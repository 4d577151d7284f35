/** Flags of other programs that mean what a flag here means, by command. Whoever comes from criu, runc, ctr, podman, docker or kubectl may write them. */
import type { CliCommand } from './command.js'

type Spellings = Readonly<Record<string, readonly string[]>>

export const DUMP: Spellings = {
  '--path': ['--images-dir', '-D', '--image-path', '--export', '-e'],
  '--dir': ['--checkpoint-dir'],
  '--compression': ['--compress', '-c'],
  '--no-leave-running': ['--exit'],
}
export const DUMP_TYPE: Spellings = { '--rootfs': ['--rw'] }
export const RESTORE: Spellings = {
  '--path': ['--images-dir', '-D', '--image-path', '--import', '-i'],
  '--leave-stopped': ['-s'],
  '--pid-file': ['--pidfile'],
}
export const RESTORE_TYPE: Spellings = { '--id': ['--name', '-n'] }
export const RUN: Spellings = { '--jid': ['--name'], '--pid-file': ['--pidfile'] }
export const RUN_TYPE: Spellings = { '--env': ['-e'] }
export const LIST: Spellings = { '--filter': ['-f'], '--sort': ['--sort-by'] }
export const KILL: Spellings = { '--grace': ['--time'] }

export function spell(command: CliCommand, spellings: Spellings): CliCommand {
  for (const [flag, others] of Object.entries(spellings)) command.spell(flag, others)
  return command
}

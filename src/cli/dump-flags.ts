/** Flags of every kind of dump. */
import { Option } from 'commander'
import type { CliCommand } from './command.js'
import { criuFlags, integer, outputFlags, type CriuFlags } from './shared-flags.js'

export interface DumpFlags extends CriuFlags {
  readonly dir?: string
  readonly name?: string
  readonly compression?: string
  readonly level?: number
  readonly streams?: number
  readonly keepLast?: number
  readonly leaveRunning?: boolean
  readonly skipInFlight?: boolean
  readonly resultFile?: string
}

export function dumpFlags(command: CliCommand): void {
  const compression = new Option('--compression <FORMAT>', 'how the checkpoint is stored (default: checkpoint.compression)')
  // Named for help and completion; others are refused by the daemon, in its words.
  compression.argChoices = ['none', 'tar', 'gzip', 'lz4', 'zlib', 'zstd']
  command
    .option('-d, --dir <DIR>', 'directory for the checkpoint, or SCHEME://… (default: checkpoint.dir)')
    .option('--name <NAME>', 'name of the checkpoint in it (default: made from type, job and time)')
    .addOption(compression)
    .addOption(new Option('--level <N>', 'level of the compression').argParser(integer))
    .addOption(new Option('--streams <N>', 'parallel streams; 0: off').argParser(integer))
    .addOption(
      new Option(
        '--keep-last <N>',
        'of a job: remove older checkpoints but for so many, with this one; 0: none (default: checkpoint.keep_last)',
      ).argParser(integer),
    )
    .option('-R, --leave-running', 'let the target go on after the dump')
    .option('--no-leave-running', 'end the target after the dump, whatever is configured')
    .option('--skip-in-flight', 'leave TCP connections out that are not yet established')
    .option('--result-file <FILE>', 'write the whole result there, as JSON')
  outputFlags(criuFlags(command))
}

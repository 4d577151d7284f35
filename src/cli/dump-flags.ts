/** Flags of every kind of dump. */
import { basename, dirname } from 'node:path'
import { Option } from 'commander'
import type { DumpRequest } from '../daemon/api/engine.js'
import type { CliCommand } from './command.js'
import { usageError } from './exit-codes.js'
import type { World } from './session.js'
import { absolute, criuFlags, integer, outputFlags, type CriuFlags } from './shared-flags.js'
import { DUMP, spell } from './spellings.js'

export interface DumpFlags extends CriuFlags {
  readonly dir?: string
  readonly name?: string
  readonly path?: string
  readonly compression?: string
  readonly level?: number
  readonly streams?: number
  readonly keepLast?: number
  readonly leaveRunning?: boolean
  readonly skipInFlight?: boolean
  readonly tcpClose?: boolean
  readonly resultFile?: string
}

const ARCHIVES: readonly (readonly [suffix: string, compression: string])[] = [
  ['.tar', 'tar'],
  ['.tar.gz', 'gzip'],
  ['.tar.lz4', 'lz4'],
  ['.tar.zlib', 'zlib'],
  ['.tar.zst', 'zstd'],
]

/** Where the checkpoint goes and how it is stored. A path says all of it: with the suffix of an archive it is one, else a directory. */
export function placeOf(world: World, flags: DumpFlags): Pick<DumpRequest, 'dir' | 'name' | 'compression'> {
  const { dir, name = '', path, compression = '', streams = 0 } = flags
  if (path === undefined) return { dir: absolute(world, dir), name, compression }
  const whole = absolute(world, path)
  const [suffix, its] = ARCHIVES.find(([end]) => whole.endsWith(end)) ?? ['', compression === '' ? 'none' : compression]
  if (suffix === '' && /[.](tgz|gz|lz4|zlib|zst)$/.test(whole))
    throw usageError(`--path ${path}: an archive ends in ${ARCHIVES.map(([end]) => end).join(', ')}`)
  if (compression !== '' && its !== compression) throw usageError(`--path ${path} says ${its}, --compression ${compression}`)
  if (suffix !== '' && streams > 0) throw usageError(`--path ${path} is an archive: --streams make a directory`)
  return { dir: dirname(whole), name: basename(whole, suffix), compression: its }
}

export function dumpFlags(command: CliCommand): void {
  const compression = new Option('--compression <FORMAT>', 'how the checkpoint is stored (default: checkpoint.compression)')
  // Named for help and completion; others are refused by the daemon, in its words.
  compression.argChoices = ['none', 'tar', 'gzip', 'lz4', 'zlib', 'zstd']
  command
    .option('-d, --dir <DIR>', 'directory for the checkpoint, or SCHEME://… (default: checkpoint.dir)')
    .option('--name <NAME>', 'name of the checkpoint in it (default: made from type, job and time)')
    .addOption(
      new Option('-p, --path <PATH>', 'the checkpoint itself: a directory, or an archive such as web.tar.zst').conflicts(['dir', 'name']),
    )
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
    .option('--tcp-close', 'leave established TCP connections out: it comes back with them closed')
    .option('--result-file <FILE>', 'write the whole result there, as JSON')
  spell(outputFlags(criuFlags(command)), DUMP)
}

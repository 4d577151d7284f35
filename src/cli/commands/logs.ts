import { open } from 'node:fs/promises'
import { watch } from 'node:fs'
import type { CliCommand } from '../command.js'
import { CliError } from '../exit-codes.js'
import { write } from '../attach/write.js'
import type { Session } from '../session.js'
import { integer } from '../shared-flags.js'
import { Option } from 'commander'

interface LogFlags {
  readonly follow?: boolean
  readonly tail?: number
}

const CHUNK = 64 * 1024

/** Offset of the last `lines` lines. */
async function tailOffset(file: Awaited<ReturnType<typeof open>>, size: number, lines: number): Promise<number> {
  const buffer = Buffer.alloc(CHUNK)
  let missing = lines + 1
  for (let end = size; end > 0; end -= CHUNK) {
    const start = Math.max(0, end - CHUNK)
    const { bytesRead } = await file.read(buffer, 0, end - start, start)
    for (let index = bytesRead - 1; index >= 0; index--) {
      // The newline that ends the file ends its last line.
      const isLineEnd = buffer[index] === 10 && start + index !== size - 1
      if (isLineEnd && --missing === 1) return start + index + 1
    }
  }
  return 0
}

async function show(session: Session, path: string, { follow, tail }: LogFlags): Promise<void> {
  const file = await open(path, 'r').catch((cause: NodeJS.ErrnoException) => {
    throw new CliError(`cannot read the log ${path}: ${cause.code ?? cause.message}`)
  })
  const { stdout, signal } = session.world
  // Watched before it is read: nothing that is written meanwhile is missed.
  let wake = (): void => {}
  const watcher = follow === true ? watch(path, () => wake()) : undefined
  signal.addEventListener('abort', () => wake(), { once: true })
  try {
    const { size } = await file.stat()
    let position = tail === undefined ? 0 : await tailOffset(file, size, tail)
    const buffer = Buffer.alloc(CHUNK)
    while (!signal.aborted) {
      const changed = new Promise<void>((resolve) => (wake = resolve))
      const { bytesRead } = await file.read(buffer, 0, CHUNK, position)
      position += bytesRead
      if (bytesRead > 0) await write(stdout, Buffer.from(buffer.subarray(0, bytesRead)))
      else if (watcher === undefined) return
      else await changed
    }
  } finally {
    watcher?.close()
    await file.close()
  }
}

export function logs(command: CliCommand): void {
  command
    .argument('<JID>', 'job id')
    .option('-f, --follow', 'go on as it grows, until Ctrl-C')
    .addOption(new Option('-n, --tail <N>', 'only the last lines').argParser(integer))
    .example('cedana logs train', 'cedana logs -f --tail 20 train')
    .does<LogFlags>(async (session, flags, [jid = '']) => {
      const job = await session.ask((engine) => engine.getJob(jid, { signal: session.signal }))
      const path = job.logPath
      if (path === '') throw new CliError(`job ${jid} has no log`, job.attachable ? { hint: `use: cedana job attach ${jid}` } : {})
      await show(session, path, flags)
    })
}

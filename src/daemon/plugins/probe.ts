/** A first look at the code of a plugin, in a process of its own: one that never ends, or ends the process, does it there. */
import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CedanaError } from '../../plugins/contract/errors.js'

const CEDANA = fileURLToPath(new URL('../../../bin/cedana', import.meta.url))

/** Throws PLUGIN_FAILED unless the code in `directory` is a plugin, and the one that its description says. */
export async function probe(directory: string, limitMs: number): Promise<void> {
  // What it makes for itself is ours to remove: it may not come to it.
  const scratch = await mkdtemp(join(tmpdir(), 'cedana-probe-'))
  try {
    await look(directory, { limitMs, env: { TMPDIR: scratch } })
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}

function look(
  directory: string,
  { limitMs, env }: { readonly limitMs: number; readonly env: Readonly<Record<string, string>> },
): Promise<void> {
  const argv = [CEDANA, 'plugin', 'manifest', '--check', '--output', 'json', directory]
  const refused = (reason: string): CedanaError => new CedanaError('PLUGIN_FAILED', reason)
  return new Promise((resolve, reject) => {
    execFile(
      'env',
      [...Object.entries(env).map(([name, value]) => `${name}=${value}`), process.execPath, ...argv],
      { timeout: limitMs, killSignal: 'SIGKILL', cwd: '/' },
      (error, stdout, stderr) => {
        if (error === null && stdout.includes('"checked"')) return resolve()
        if (error?.killed === true) return reject(refused(`did not load within ${limitMs / 1000} s`))
        reject(
          refused(
            saidIn(stderr) ??
              (error === null
                ? 'its code ends the process that loads it'
                : `its code ended the process that loaded it: ${error.message.split('\n')[0]}`),
          ),
        )
      },
    )
  })
}

/** The error of the command line, as JSON. */
function saidIn(stderr: string): string | undefined {
  try {
    const { error } = JSON.parse(stderr) as { readonly error?: { readonly message?: string } }
    return error?.message
  } catch {
    return undefined
  }
}

/** The file that a result is to be written to, open before there is one: what stands in its way is known before anything is done. */
import { open, unlink, type FileHandle } from 'node:fs/promises'
import { constants } from 'node:fs'
import { reasonOf } from '../plugins/contract/errors.js'
import { CliError } from './exit-codes.js'
import { absolute } from './shared-flags.js'
import type { Session } from './session.js'

export interface ResultFile {
  write(text: string): Promise<void>
  /** There will be no result: a file that was there stays as it was, another is gone again. */
  discard(): Promise<void>
}

export async function openResultFile({ world }: Session, name: string): Promise<ResultFile> {
  const path = absolute(world, name)
  const { file, isNew } = await openToWrite(path).catch((thrown: unknown) => {
    throw new CliError(`cannot write ${name}: ${reasonOf(thrown)}`, { hint: 'nothing was done; name a file that can be written' })
  })
  return {
    async write(text) {
      await replace(file, text)
        .finally(() => file.close())
        .catch((thrown: unknown) => {
          throw new CliError(`cannot write ${name}: ${reasonOf(thrown)}`)
        })
    },
    async discard() {
      await file.close()
      if (isNew) await unlink(path)
    },
  }
}

async function openToWrite(path: string): Promise<{ readonly file: FileHandle; readonly isNew: boolean }> {
  const { O_WRONLY, O_CREAT, O_EXCL } = constants
  try {
    return { file: await open(path, O_WRONLY | O_CREAT | O_EXCL, 0o644), isNew: true }
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'EEXIST') throw thrown
    return { file: await open(path, O_WRONLY | O_CREAT, 0o644), isNew: false }
  }
}

async function replace(file: FileHandle, text: string): Promise<void> {
  // A pipe or a terminal cannot be cut.
  if ((await file.stat()).isFile()) await file.truncate()
  await file.writeFile(text)
}

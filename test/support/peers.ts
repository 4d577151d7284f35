/** Programs that the system has not, or not so new: `scripts/setup --tests` brings them where it can. */
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'

export const PEERS = '/opt/cedana/peers/bin'

const CHECKPOINTCTL = join(PEERS, 'checkpointctl')
export const hasCheckpointctl = existsSync(CHECKPOINTCTL)

/** What it says of an archive. Throws when it fails. */
export const checkpointctl = (...args: readonly string[]): string => execFileSync(CHECKPOINTCTL, args, { encoding: 'utf8' })

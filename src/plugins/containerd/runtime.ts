import { dump } from './dump.js'
import { exitStatus, freeze, kill, remove, resize, unfreeze } from './control.js'
import { launch } from './launch.js'
import { query } from './query.js'
import { restore } from './restore.js'
import { run } from './run.js'
import { resolve } from './state.js'

/** Checked against the manifest's claims where plugin.ts loads it. */
export const runtime = { run, launch, resolve, dump, restore, freeze, unfreeze, kill, resize, exitStatus, remove, query }

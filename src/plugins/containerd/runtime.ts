import { dump } from './dump.js'
import { exitStatus, freeze, kill, remove, resize, unfreeze } from './control.js'
import { launch } from './launch.js'
import { query } from './query.js'
import { restore } from './restore.js'
import { run } from './run.js'
import { save } from './save.js'
import { resolve } from './state.js'
import { upcoming } from './upcoming.js'

/** Checked against the manifest's claims where plugin.ts loads it. */
export const runtime = { run, launch, resolve, upcoming, dump, save, restore, freeze, unfreeze, kill, resize, exitStatus, remove, query }

import { query } from './query.js'
import { resolve } from './state.js'

/** Checked against the manifest's claims where plugin.ts loads it. */
export const runtime = { resolve, query }

import type { z } from 'zod'
import type { Host } from '../contract/host.js'
import { asCaller } from '../contract/kit.js'
import type { RunPlan } from '../contract/plan.js'
import type { RunContext } from '../contract/runtime.js'
import type { RunOptions } from './options.js'

/** The program with the caller's ids, environment and directory. The path was looked up by the client, in the caller's PATH. */
export async function run(_host: Host, context: RunContext, options: z.output<typeof RunOptions>): Promise<RunPlan> {
  return asCaller(context, [options.path, ...options.args])
}

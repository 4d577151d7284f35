/**
 * Trees that are stopped for a dump, by CRIU in their cgroup or by their runtime: whoever is killed then, they go on. From before that there is a note in
 * the run directory; a daemon that finds one of a dead process of cedana lets the tree go on.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Target } from '../../plugins/contract/job.js'
import { isFrozen, thaw } from '../host/freezer.js'
import * as processes from '../host/processes.js'
import type { Environment } from './environment.js'
import { hostFor } from './host.js'
import { leftNotes, writeNote } from './notes.js'
import { REMOVE_MS } from './starts.js'
import type { FoundTarget } from './target.js'

const Stop = z.object({
  type: z.string(),
  identity: z.record(z.string(), z.unknown()),
  target: z.object({ pid: z.number(), startTicks: z.string(), bootId: z.string() }),
  /** Directory of its cgroup. */
  freezer: z.string(),
  by: z.enum(['criu', 'runtime']),
})
type Stop = z.output<typeof Stop>

const notesDirectory = (env: Environment): string => join(env.config.run_dir, 'stopped')

/** Answers what is to be done when the dump is over, whatever became of it. A tree that stands still already is not to go on by that. */
export async function noteStop(
  env: Environment,
  { type, identity, target }: Pick<FoundTarget, 'type' | 'identity' | 'target'>,
  { freezer, by }: { readonly freezer: string; readonly by: Stop['by'] },
): Promise<() => Promise<void>> {
  if (await isFrozen(freezer)) return async () => undefined
  const stop: Stop = { type, identity, target, freezer, by }
  const path = await writeNote(env, notesDirectory(env), stop).catch((thrown: unknown) => {
    // A disk that is full is no reason to have no checkpoint.
    env.log.warn({ err: CedanaError.from(thrown).message }, 'should the daemon be killed now, nobody will know what stands still')
  })
  return async () => {
    // Who has stopped it lets it go on, unless it was killed.
    await letGoOn(env, stop)
    if (path !== undefined) await rm(path, { force: true })
  }
}

async function letGoOn(env: Environment, { type, identity, target: named, freezer, by }: Stop): Promise<void> {
  const target = named as Target
  if (!(await processes.isAlive(target)) || !(await isFrozen(freezer))) return
  env.log.warn({ pid: target.pid, by }, 'a tree was left standing still')
  if (by === 'criu') await thaw(freezer)
  else await (await env.runtimes.verb(type, 'unfreeze'))(hostFor(env, AbortSignal.timeout(REMOVE_MS)), target, identity)
}

/** What dead processes of cedana have left standing still. */
export async function letGoLeft(env: Environment): Promise<void> {
  for await (const { path, note } of leftNotes(notesDirectory(env))) {
    try {
      await letGoOn(env, Stop.parse(note))
      await rm(path, { force: true })
    } catch (thrown) {
      env.log.warn({ path, err: CedanaError.from(thrown).message }, 'a tree that was left standing still could not be let go on')
    }
  }
}

/** The daemon's verbs over one environment, and its life: adopt what survived, serve, stop. */
import { adoptAll } from './operations/adopt.js'
import { attach } from './operations/attach.js'
import { check } from './operations/check.js'
import { deleteCheckpoint, exportCheckpoint, inspectCheckpoint, listCheckpoints, verifyCheckpoint } from './operations/checkpoints.js'
import { dump, removeUnfinished } from './operations/dump.js'
import type { Environment } from './operations/environment.js'
import { releaseLeftGpus } from './operations/gpu.js'
import { freeze, unfreeze } from './operations/freeze.js'
import { deleteJobs, endAll, getJob, killJobs, listJobs } from './operations/jobs.js'
import { manage } from './operations/manage.js'
import { listPlugins, reload, reloadPlugins } from './operations/plugins.js'
import { query } from './operations/query.js'
import { restore } from './operations/restore.js'
import { run } from './operations/run.js'
import { letGoLeft } from './operations/standstill.js'
import type { Verbs } from './operations/verbs.js'
import { release } from 'node:os'

export function verbsOf(env: Environment, criuVersion: () => string): Verbs {
  return {
    run: (call, request) => run(env, call, request),
    manage: (call, request) => manage(env, call, request),
    dump: (call, request) => dump(env, call, request),
    restore: (call, request) => restore(env, call, request),
    freeze: (call, request) => freeze(env, call, request),
    unfreeze: (call, request) => unfreeze(env, call, request),
    attach: (call, request, input) => attach(env, call, request, input),
    getJob: (call, jid) => getJob(env, call, jid),
    listJobs: (call, filter) => listJobs(env, call, filter),
    killJobs: (call, request) => killJobs(env, call, request),
    deleteJobs: (call, request) => deleteJobs(env, call, request),
    listCheckpoints: async (call, jid) => listCheckpoints(env, call, jid),
    inspectCheckpoint: (call, id) => inspectCheckpoint(env, call, id),
    verifyCheckpoint: (call, id) => verifyCheckpoint(env, call, id),
    exportCheckpoint: (call, request) => exportCheckpoint(env, call, request),
    deleteCheckpoint: (call, id) => deleteCheckpoint(env, call, id),
    query: (call, request) => query(env, call, request),
    check: (call, request) => check(env, call, request),
    listPlugins: (call, request) => listPlugins(env, call, request),
    reloadPlugins: (call) => reloadPlugins(env, call),
    reload: (call) => reload(env, call),
    version: () => ({ version: env.version, criu: criuVersion(), kernel: release(), pid: process.pid }),
  }
}

/** Before the first request: the jobs of the daemon before this one, and what it left unfinished. */
export async function takeOver(env: Environment): Promise<void> {
  await adoptAll(env)
  await removeUnfinished(env)
  await letGoLeft(env)
  await releaseLeftGpus(env)
}

/** After the last request: jobs go on, unless the configuration says otherwise. */
export async function letGo(env: Environment): Promise<void> {
  if (env.config.jobs.on_stop === 'kill') await endAll(env)
  env.jobs.close()
  env.cuda.close()
}

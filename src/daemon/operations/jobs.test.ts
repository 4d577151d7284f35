/** Jobs as they are looked at. */
import { expect, it } from 'vitest'
import type { ExitStatus } from '../../plugins/contract/job.js'
import { IN_MEMORY, openDatabase } from '../db/database.js'
import { JobTable } from '../jobs/table.js'
import type { Environment } from './environment.js'
import { getJob } from './jobs.js'
import { newJob } from './run.js'
import type { Call } from './verbs.js'

const log = { debug: () => undefined, info: () => undefined, warn: () => undefined }
const owner = { uid: 0, gid: 0, groups: [] }
const call = { caller: { ...owner, pid: process.pid } } as unknown as Call
/** Larger than any that the kernel gives. */
const NOBODY = 2 ** 30

it('how a job has ended is waited for, where somebody else has to be asked', async () => {
  let tell: (exit: ExitStatus) => void = () => undefined
  const answer = new Promise<ExitStatus>((resolve) => {
    tell = resolve
  })
  const atEnd = { exitOf: () => answer, removeRemains: async () => undefined }
  const env = {
    config: { run_dir: '/nowhere' },
    log,
    jobs: new JobTable(openDatabase(IN_MEMORY).jobs, 'host', log, atEnd),
    checkpoints: { latestByJob: () => new Map() },
  } as unknown as Environment
  env.jobs.create(newJob(env, { jid: 'one', type: 'podman', state: 'running', pid: NOBODY, owner, directory: '' }))
  env.jobs.watch(env.jobs.get('one'))
  const looked = getJob(env, call, 'one')
  setImmediate(tell, { code: 7 })
  expect(await looked).toMatchObject({ status: 'halted', exit: { code: 7 }, endReason: 'exited' })
})

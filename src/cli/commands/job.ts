import type { CliCommand } from '../command.js'
import { attachJob } from './attach.js'
import { checkpoint, checkpointList } from './checkpoint.js'
import { kill, remove } from './job-end.js'
import { jobInspect } from './job-inspect.js'
import { jobList } from './job-list.js'
import { logs } from './logs.js'

export function job(command: CliCommand): void {
  const list = command.add('list', 'list jobs')
  list.alias('ls')
  jobList(list)
  jobInspect(command.add('inspect', 'show everything about a job'))
  logs(command.add('logs', 'show the output of a job'))
  attachJob(command.add('attach', 'connect to the standard streams of a job'))
  kill(command.add('kill', 'end jobs'))
  remove(command.add('delete', 'forget ended jobs; their checkpoints stay on disk').alias('rm'))
  checkpoint(command.add('checkpoint', 'list, inspect, verify and delete checkpoints'))
  checkpointList(command.add('checkpoints', 'list checkpoints'))
}

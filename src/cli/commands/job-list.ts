import type { JobView } from '../../daemon/api/engine.js'
import type { CliCommand } from '../command.js'
import { latestFlag, type LatestFlag, latestJob } from '../latest.js'
import { printListing, type Listing } from '../render/listing.js'
import type { Colour } from '../render/style.js'
import { formatAge, formatSize, formatTime } from '../render/units.js'
import { listFlags } from '../shared-flags.js'

const STATUS_COLOURS: Readonly<Record<string, Colour>> = {
  running: 'green',
  sleep: 'green',
  zombie: 'yellow',
  remote: 'blue',
}

function exitText({ exit }: JobView): string {
  if (exit === undefined) return ''
  return exit.signal ? `signal ${exit.signal}` : String(exit.code ?? '')
}

const jobListing = (jobs: readonly JobView[], now: number): Listing<JobView> => ({
  items: jobs,
  columns: [
    { header: 'job', cell: (job) => ({ text: job.jid }) },
    { header: 'type', cell: (job) => ({ text: job.type, colour: 'cyan' }) },
    { header: 'pid', align: 'right', cell: (job) => ({ text: String(job.pid) }) },
    {
      header: 'status',
      alias: 'state',
      cell: (job) => ({ text: job.status, colour: STATUS_COLOURS[job.status] ?? 'grey' }),
      // Whatever the kernel has it do at the moment.
      matches: (job, value) => value === 'running' && job.isRunning,
    },
    { header: 'gpu', cell: (job) => (job.gpuEnabled ? { text: 'yes', colour: 'green' } : { text: 'no', colour: 'grey' }) },
    {
      header: 'checkpoint',
      align: 'right',
      cell: (job) => ({ text: formatAge(job.latestCheckpoint?.time ?? 0, now) }),
      order: (job) => job.latestCheckpoint?.time ?? 0,
    },
    {
      header: 'size',
      align: 'right',
      cell: (job) => ({ text: formatSize(job.latestCheckpoint?.size ?? 0) }),
      order: (job) => job.latestCheckpoint?.size ?? 0,
    },
    { header: 'log', cell: (job) => ({ text: job.log }) },
  ],
  wide: [
    { header: 'checkpoints', align: 'right', cell: (job) => ({ text: String(job.checkpoints) }) },
    { header: 'exit', cell: (job) => ({ text: exitText(job), colour: job.exit?.code === 0 ? undefined : 'red' }) },
    {
      header: 'ended',
      cell: (job) => ({ text: [job.endReason, formatTime(job.exitedAt)].filter(Boolean).join(' ') }),
      order: (job) => job.exitedAt,
    },
    { header: 'created', cell: (job) => ({ text: formatTime(job.createdAt) }) },
    { header: 'uid', align: 'right', cell: (job) => ({ text: String(job.uid) }) },
    { header: 'command', cell: (job) => ({ text: job.args.join(' ') }) },
  ],
  id: (job) => job.jid,
  none: 'No jobs found',
  hints: ['Use `job inspect <JID>` for more details about a job', 'Use `job checkpoint list <JID>` to list all checkpoints for a job'],
})

export function jobList(command: CliCommand): void {
  latestFlag(listFlags(command), 'only the job that was made last')
    .option('-a, --all', 'also jobs of other hosts')
    .example(
      'cedana ps',
      'cedana ps -o wide',
      'cedana ps -q --filter status=running',
      'cedana ps --sort -size',
      "cedana ps -o json | jq '.[] | select(.is_running)'",
    )
    .does<{ readonly all?: boolean } & LatestFlag>(async (session, { all = false, latest = false }) => {
      const { signal } = session
      // Documents and the wide table show everything.
      const { filter, sort } = session.options
      const brief = !session.isStructured && session.format !== 'wide' && filter === undefined && sort === undefined && !latest
      const jobs = await session.ask((engine) => engine.listJobs({ allHosts: all, jids: [], brief }, { signal }))
      await printListing(session, jobListing(latest ? latestJob(jobs) : jobs, Date.now()))
    })
}

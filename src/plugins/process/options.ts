import { z } from 'zod'

/** PID on the command line: decimal, 31 bit. A number already when it comes over the API. */
const pid = z
  .union(
    [
      z
        .string()
        .regex(/^[0-9]+$/, 'invalid pid')
        .transform(Number),
      z.number(),
    ],
    { error: 'invalid pid' },
  )
  .refine((value) => Number.isInteger(value) && value >= 1 && value <= 0x7fffffff, 'invalid pid')

export const RunOptions = z.strictObject({
  path: z
    .string()
    .min(1, 'no program named')
    .meta({ positional: true, executable: true, description: 'program to run, looked up in PATH' }),
  args: z.array(z.string()).default([]).meta({ positional: true, description: 'its arguments; flags after -- are its own' }),
})

export const ResolveOptions = z.strictObject({
  pid: pid.meta({ positional: true, description: 'process id' }),
})

export const QueryOptions = z.strictObject({
  pids: z.array(pid).min(1, 'no PIDs provided for process query').meta({ positional: true, description: 'process ids' }),
  tree: z.boolean().default(false).meta({ short: 't', description: 'the whole process tree below each PID' }),
})

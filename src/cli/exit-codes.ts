/** Exit codes of the command line. A command that stands for a job (attach, --attach, --no-server) passes the job's own code on. */
export const EXIT = {
  ok: 0,
  error: 1,
  /** Unknown command or flag, missing argument. */
  usage: 2,
  /** The job was dumped while attached: it has not ended, it can be restored (EX_TEMPFAIL). */
  dumped: 75,
  /** Detached by Ctrl-C or the detach keys: the job goes on. */
  detached: 130,
  /** Whoever read the output of the attached job went away (128 + SIGPIPE): the job goes on. */
  closed: 141,
} as const

/** A mistake the command line sees by itself, before anything is asked of the engine. */
export class CliError extends Error {
  readonly exitCode: number
  readonly hint: string | undefined

  constructor(message: string, options: { readonly exitCode?: number; readonly hint?: string } = {}) {
    super(message)
    this.exitCode = options.exitCode ?? EXIT.error
    this.hint = options.hint
  }
}

export const usageError = (message: string, hint?: string): CliError =>
  new CliError(message, { exitCode: EXIT.usage, ...(hint !== undefined && { hint }) })

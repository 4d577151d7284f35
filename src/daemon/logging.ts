/** The log of the daemon: lines on stderr, as JSON for programs or as text for people and for the journal. */
import { fstatSync, writeSync } from 'node:fs'
import { pino, type DestinationStream, type Logger } from 'pino'
import type { LogFormat, LogLevel } from './config.js'

const PINO_LEVEL = {
  trace: 'trace',
  debug: 'debug',
  info: 'info',
  warn: 'warn',
  error: 'error',
  fatal: 'fatal',
  panic: 'fatal',
  disabled: 'silent',
} as const satisfies Record<LogLevel, string>

type Level = readonly [name: string, priority: number, colour: number]
const INFO: Level = ['INF', 6, 32]
/** Short name, priority of syslog(3), colour. */
const LEVELS: Readonly<Record<string, Level>> = {
  trace: ['TRC', 7, 90],
  debug: ['DBG', 7, 90],
  info: INFO,
  warn: ['WRN', 4, 33],
  error: ['ERR', 3, 31],
  fatal: ['FTL', 2, 31],
}

/** Where stderr leads. */
export type Sink = 'terminal' | 'journal' | 'other'

export interface LoggerOptions {
  readonly level: LogLevel
  readonly format: LogFormat
  readonly env: Readonly<Record<string, string | undefined>>
}

export function createLogger({ level, format, env }: LoggerOptions): Logger {
  const sink = sinkOf(env)
  const isText = format === 'text' || (format === 'auto' && sink !== 'other')
  const colours = sink === 'terminal' && !env.NO_COLOR && env.TERM !== 'dumb'
  const write = (line: string): void => {
    writeLine(2, isText ? formatText(line, sink, colours) : line)
  }
  return loggerTo({ write }, level)
}

export function setLevel(log: Logger, level: LogLevel): void {
  log.level = PINO_LEVEL[level]
}

/**
 * At once, so that nothing is lost whatever becomes of the process. A line that nobody can take (the reader is gone, the disk is full) is given up;
 * pino's own writer would try for ever.
 */
export function writeLine(fd: number, line: string): void {
  const bytes = Buffer.from(line)
  try {
    for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at)
  } catch {
    // There is nowhere left to say so.
  }
}

export function loggerTo(destination: DestinationStream, level: LogLevel): Logger {
  return pino(
    {
      level: PINO_LEVEL[level],
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      // Nobody should log these; should it happen, their values stay unknown.
      redact: ['environment', '*.environment', 'env', '*.env', 'token', '*.token', 'auth_token', '*.auth_token', '*.secret_access_key'],
    },
    destination,
  )
}

/** systemd tells which descriptor is the journal's, so that one that was redirected since is not taken for it. */
function sinkOf(env: LoggerOptions['env']): Sink {
  if (process.stderr.isTTY) return 'terminal'
  const { dev, ino } = fstatSync(2)
  return env.JOURNAL_STREAM === `${dev}:${ino}` ? 'journal' : 'other'
}

const quote = (value: unknown): string => {
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return typeof value === 'string' && (text === '' || /[\s"=\p{Cc}]/u.test(text)) ? JSON.stringify(text) : text
}

/** `HH:MM:SS INF message key=value …`; in the journal, which has the time, the priority instead. */
export function formatText(line: string, sink: Sink, colours: boolean): string {
  const { level, time, msg = '', ...fields } = JSON.parse(line) as { level: string; time: string; msg?: string }
  const [name, priority, colour] = LEVELS[level] ?? INFO
  const paint = (text: string, sgr: number): string => (colours ? `\u001b[${sgr}m${text}\u001b[0m` : text)
  const start = sink === 'journal' ? `<${priority}>` : `${paint(clock(new Date(time)), 90)} ${paint(name, colour)} `
  const rest = Object.entries(fields).map(([key, value]) => ` ${paint(`${key}=`, 90)}${quote(value)}`)
  return `${start}${msg.replaceAll('\n', ' ')}${rest.join('')}\n`
}
const clock = (date: Date): string =>
  [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, '0')).join(':')

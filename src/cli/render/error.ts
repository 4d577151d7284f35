/** An error for people (one line, what to do, CRIU's own words) or for programs (one JSON object). */
import { CedanaError, ERRORS } from '../../plugins/contract/errors.js'
import { CliError, EXIT } from '../exit-codes.js'
import { snakeCase } from './structured.js'
import type { Style } from './style.js'

/** `NOT_FOUND` → `NotFound`. */
const canonicalName = (grpc: string): string =>
  grpc.toLowerCase().replace(/(^|_)([a-z])/g, (_, _gap, letter: string) => letter.toUpperCase())

export const exitCodeOf = (error: unknown): number => (error instanceof CliError ? error.exitCode : EXIT.error)

function criuLines(detail: Readonly<Record<string, unknown>>): string[] {
  const lines = Array.isArray(detail.criu) ? detail.criu.filter((line) => typeof line === 'string') : []
  const log = typeof detail.log === 'string' ? [`log: ${detail.log}`] : []
  return [...lines.map((line) => `criu: ${line}`), ...log]
}

export function errorText(thrown: unknown, style: Style): string {
  if (thrown instanceof CliError) return `Error: ${thrown.message}\n${thrown.hint === undefined ? '' : `  → ${thrown.hint}\n`}`
  const error = CedanaError.from(thrown)
  const lines = [`Error: ${style('red', canonicalName(ERRORS[error.code].grpc))}: ${error.message}`]
  for (const line of criuLines(error.detail)) lines.push(style('grey', `  ${line}`))
  if (error.hint !== undefined) lines.push(`  → ${error.hint}`)
  for (const later of error.suppressed) lines.push(`  also: ${later.message}`)
  if (error.code === 'BUG') lines.push('  → this is a bug in cedana: please report it')
  return `${lines.join('\n')}\n`
}

export function errorJson(thrown: unknown): string {
  if (thrown instanceof CliError) {
    const code = thrown.exitCode === EXIT.usage ? 'USAGE' : 'BAD_OPTIONS'
    return `${JSON.stringify({ error: { code, grpc: 'INVALID_ARGUMENT', message: thrown.message, hint: thrown.hint, detail: {} } })}\n`
  }
  const { code, message, hint, detail } = CedanaError.from(thrown)
  return `${JSON.stringify({ error: { code, grpc: ERRORS[code].grpc, message, hint, detail: snakeCase(detail) } })}\n`
}

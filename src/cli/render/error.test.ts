import { expect, test } from 'vitest'
import { CedanaError } from '../../plugins/contract/errors.js'
import { CliError, EXIT, usageError } from '../exit-codes.js'
import { errorJson, errorText, exitCodeOf } from './error.js'
import { coloured, plain } from './style.js'

test('canonical name, message, hint', () => {
  const error = new CedanaError('NO_SUCH_JOB', 'job x not found', { hint: 'see cedana ps' })
  expect(errorText(error, plain)).toBe('Error: NotFound: job x not found\n  → see cedana ps\n')
  expect(errorText(error, coloured)).toContain('Error: \x1b[31mNotFound\x1b[0m: job x not found')
})

test('a CRIU failure shows the lines of its log and where that is', () => {
  const error = new CedanaError('CRIU_DUMP_FAILED', 'criu could not dump pid 1', {
    detail: { criu: ['Error (a.c:1): b'], log: '/run/x.log' },
  })
  expect(errorText(error, plain)).toBe('Error: Internal: criu could not dump pid 1\n  criu: Error (a.c:1): b\n  log: /run/x.log\n')
})

test('the command line sees its own mistakes', () => {
  expect(errorText(new CliError('invalid pid: x'), plain)).toBe('Error: invalid pid: x\n')
  expect(exitCodeOf(usageError('unknown option'))).toBe(EXIT.usage)
  expect(exitCodeOf(new Error('anything'))).toBe(EXIT.error)
})

test('as JSON', () => {
  const error = new CedanaError('TARGET_UNFIT', 'no', { hint: 'h', detail: { logPath: '/x' } })
  expect(JSON.parse(errorJson(error))).toEqual({
    error: { code: 'TARGET_UNFIT', grpc: 'FAILED_PRECONDITION', message: 'no', hint: 'h', detail: { log_path: '/x' } },
  })
  expect(JSON.parse(errorJson(usageError('u')))).toEqual({ error: { code: 'USAGE', grpc: 'INVALID_ARGUMENT', message: 'u', detail: {} } })
})

test('anything unknown is called a bug', () => {
  expect(errorText(new TypeError('x is undefined'), plain)).toMatch(/^Error: Internal: x is undefined\n.*bug/)
})

import { closeSync, openSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { formatText, loggerTo, writeLine } from './logging.js'

function capture(level: Parameters<typeof loggerTo>[1]) {
  const lines: string[] = []
  return { lines, log: loggerTo({ write: (line) => void lines.push(line) }, level) }
}

describe('log', () => {
  it('is JSON with level names, without secrets', () => {
    const { lines, log } = capture('info')
    log.debug({ a: 1 }, 'not this')
    log.child({ job: 'train' }).info({ pid: 7, environment: { SECRET: 'x' }, token: 't' }, 'job started')
    expect(lines.map((line) => JSON.parse(line) as object)).toEqual([
      {
        level: 'info',
        time: expect.stringMatching(/^\d{4}-.*Z$/),
        job: 'train',
        pid: 7,
        environment: '[Redacted]',
        token: '[Redacted]',
        msg: 'job started',
      },
    ])
  })

  it('is silent when disabled, and takes panic for fatal', () => {
    const none = capture('disabled')
    none.log.fatal({}, 'x')
    expect(none.lines).toEqual([])
    const panic = capture('panic')
    panic.log.error({}, 'x')
    panic.log.fatal({}, 'y')
    expect(panic.lines).toHaveLength(1)
  })

  const line = JSON.stringify({
    level: 'warn',
    time: new Date(2026, 0, 1, 3, 4, 5).toISOString(),
    pid: 7,
    path: '/a b',
    list: [1],
    empty: '',
    msg: 'two\nlines',
  })
  it('has a form for people', () => {
    expect(formatText(line, 'other', false)).toBe('03:04:05 WRN two lines pid=7 path="/a b" list=[1] empty=""\n')
    expect(formatText(line, 'terminal', true)).toContain('\u001b[33mWRN\u001b[0m')
  })
  it('has a form for the journal', () => {
    expect(formatText(line, 'journal', false)).toBe('<4>two lines pid=7 path="/a b" list=[1] empty=""\n')
  })

  it('gives up a line that nobody can take', () => {
    const full = openSync('/dev/full', 'w')
    writeLine(full, 'x\n')
    closeSync(full)
    writeLine(full, 'x\n')
  })
})

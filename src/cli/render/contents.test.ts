import { expect, test } from 'vitest'
import { sectionTable } from './contents.js'
import { plain } from './style.js'

const contents = {
  processes: [
    {
      pid: 7,
      parentPid: 0,
      session: 7,
      state: 'running',
      name: 'sh',
      threads: [7, 8],
      args: ['sh', '-c', 'x'],
      memory: { mappedBytes: 2048, storedBytes: 0 },
      files: [{ fd: 0, kind: 'regular', path: '/dev/null' }],
      sockets: [],
    },
  ],
  totals: { processes: 1 },
}

test('processes, and what each of them has', () => {
  expect(sectionTable('processes', contents, plain)).toBe(
    'PID  PARENT PID  SESSION  STATE    THREADS  ARGS\n  7           0        7  running        2  sh -c x\n',
  )
  expect(sectionTable('files', contents, plain)).toBe('PID  FD  KIND     PATH\n  7   0  regular  /dev/null\n')
  expect(sectionTable('memory', contents, plain)).toContain('  7  sh     2 KiB')
})

test('a process whose command line is not in the checkpoint goes by its name', () => {
  const processes = contents.processes.map((one) => ({ ...one, args: [] }))
  expect(sectionTable('processes', { processes }, plain)).toMatch(/ \[sh\]\n$/)
})

test('nothing of a kind', () => {
  expect(sectionTable('sockets', contents, plain)).toBe('')
  expect(sectionTable('gpu', {}, plain)).toBe('')
})

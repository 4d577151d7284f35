import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import type { Environment } from './environment.js'
import { examine } from './needs.js'

const directory = mkdtempSync(join(tmpdir(), 'cedana-needs-'))
afterAll(() => rmSync(directory, { recursive: true }))

/** A program that says this to these flags alone. */
function program(says: Readonly<Record<string, string>>): string {
  const path = join(directory, Object.keys(says).join('') || 'silent')
  const cases = Object.entries(says).map(([flag, text]) => `${flag}) echo ${text}; exit 0;;`)
  writeFileSync(path, ['#!/bin/sh', 'case $1 in', ...cases, 'esac', 'exit 1'].join('\n'), { mode: 0o755 })
  return path
}

const env = { config: { run_dir: directory } } as unknown as Environment
const look = (binary: string, version: string) => examine(env, new AbortController().signal, { binary, version })

it.each([
  ['--version', { '--version': 'tool version 1.2.3' }, { found: '1.2.3', problem: '' }],
  ['-V alone', { '-V': 'tool 3.3a' }, { found: '3.3', problem: '' }],
])('a program that tells its version by %s', async (_flag, says, expected) => {
  expect(await look(program(says), '>=1.1')).toMatchObject(expected)
})

it('one that is too old, or does not tell its version, or is not there', async () => {
  expect((await look(program({ '--version': 'tool 1.0' }), '>=1.1')).problem).toContain('1.0 does not do: >=1.1 is needed')
  expect(await look(program({}), '>=1.1')).toMatchObject({ found: 'of unknown version' })
  expect((await look(program({}), '>=1.1')).problem).toContain('does not tell its version')
  expect(await look(join(directory, 'absent'), '>=1.1')).toMatchObject({ found: 'missing' })
})

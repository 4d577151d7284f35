import { expect, test } from 'vitest'
import { coloured, plain, styleFor } from './style.js'

const terminal = { isTTY: true }

test.each([
  ['a terminal', terminal, 'auto', {}, coloured],
  ['a pipe', {}, 'auto', {}, plain],
  ['a dumb terminal', terminal, 'auto', { TERM: 'dumb' }, plain],
  ['NO_COLOR', terminal, 'auto', { NO_COLOR: '1', FORCE_COLOR: '1' }, plain],
  ['FORCE_COLOR', {}, 'auto', { FORCE_COLOR: '1' }, coloured],
  ['FORCE_COLOR=0', terminal, 'auto', { FORCE_COLOR: '0' }, plain],
  ['CLICOLOR_FORCE', {}, 'auto', { CLICOLOR_FORCE: '1' }, coloured],
  ['--color=always', {}, 'always', { NO_COLOR: '1' }, coloured],
  ['--color=never', terminal, 'never', {}, plain],
] as const)('%s', (_name, stream, mode, env, style) => {
  expect(styleFor(stream, mode, env)).toBe(style)
})

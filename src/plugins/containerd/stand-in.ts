/** What containerd's shim calls in place of runc, for the container of one restore: it is runc, which finds our CRIU. */

export const STAND_IN = 'runc-of-cedana'

const quoted = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`

/** `environment`: of the launcher, which the restore has been told by. Without it, nothing but runc. */
export function standIn(runc: string, environment?: Readonly<Record<string, string>>): string {
  const { PATH = '', CRIU_CONFIG_FILE = '' } = environment ?? {}
  const [criu = ''] = PATH.split(':')
  const setting = `export PATH=${quoted(criu)}:"$PATH" CRIU_CONFIG_FILE=${quoted(CRIU_CONFIG_FILE)}`
  const lines = environment ? [`for word; do`, `  [ "$word" != restore ] || { ${setting}; break; }`, 'done'] : []
  return ['#!/bin/sh', ...lines, `exec ${quoted(runc)} "$@"`, ''].join('\n')
}

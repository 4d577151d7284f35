/** What containerd's shim calls in place of runc, for the container of one restore: it is runc, which finds our CRIU. */
import { criuEnvironment, quoted } from '../contract/kit.js'

export const STAND_IN = 'runc-of-cedana'

interface Replaced {
  readonly runc: string
  /** The shim works elsewhere, maybe in a directory that is gone: a shell would complain of that where the container's output goes. */
  readonly isElsewhere: boolean
}

/** `environment`: of the launcher, which the restore has been told by; `flags`: of `runc restore`. Without them, nothing but runc. */
export function standIn(
  { runc, isElsewhere }: Replaced,
  restore?: { readonly environment: Readonly<Record<string, string>>; readonly flags: readonly string[] },
): string {
  const { PATH, CRIU_CONFIG_FILE } = criuEnvironment(restore ?? { environment: {} })
  const [criu = ''] = PATH.split(':')
  const setting = `export PATH=${quoted(criu)}:"$PATH" CRIU_CONFIG_FILE=${quoted(CRIU_CONFIG_FILE)}`
  const flags = (restore?.flags ?? []).map(quoted).join(' ')
  // Each word goes from the front to the back once.
  const lines = [
    'seen=',
    'for word; do',
    '  shift',
    '  set -- "$@" "$word"',
    `  [ "$word$seen" != restore ] || { seen=.; ${setting}; set -- "$@" ${flags}; }`,
    'done',
  ]
  const shell = isElsewhere ? '#!/usr/bin/env -S -C / sh' : '#!/bin/sh'
  return [shell, ...(restore ? lines : []), `exec ${quoted(runc)} "$@"`, ''].join('\n')
}

/** What containerd's shim calls in place of runc, for the container of one restore: it is runc, which finds our CRIU. */
import { criuEnvironment, quoted } from '../contract/kit.js'

export const STAND_IN = 'runc-of-cedana'

interface Replaced {
  readonly runc: string
  readonly bundle: string
  /** The shim works elsewhere, maybe in a directory that is gone: a shell would complain of that where the container's output goes. */
  readonly isElsewhere: boolean
}

/**
 * Whoever is killed in the middle of `runc restore`, containerd will have runc delete what is left. What that has mounted goes before: it would empty
 * the root file system with its own directory, and keep containerd from unmounting that by what was mounted in it.
 */
const deleting = (bundle: string): readonly string[] => [
  'verb= root= last=',
  'for word; do',
  '  [ "$last" != --root ] || root=$word',
  '  [ "$word" != delete ] || verb=delete',
  '  last=$word',
  'done',
  `[ -z "$verb" ] || while read -r _ _ _ _ point _; do`,
  `  case $point in "$root/$last"/* | ${quoted(bundle)}/rootfs/*) umount -l "$point" 2>/dev/null ;; esac`,
  'done </proc/self/mountinfo',
]

/** `environment`: of the launcher, which the restore has been told by; `flags`: of `runc restore`. Without them, nothing but runc. */
export function standIn(
  { runc, bundle, isElsewhere }: Replaced,
  restore?: { readonly environment: Readonly<Record<string, string>>; readonly flags: readonly string[] },
): string {
  const { PATH, ...others } = criuEnvironment(restore ?? { environment: {} })
  const [criu = ''] = PATH.split(':')
  const settings = Object.entries(others).map(([name, value]) => `${name}=${quoted(value)}`)
  const setting = `export PATH=${quoted(criu)}:"$PATH" ${settings.join(' ')}`
  const flags = (restore?.flags ?? []).map(quoted).join(' ')
  // Each word goes from the front to the back once.
  const restoring = [
    'seen=',
    'for word; do',
    '  shift',
    '  set -- "$@" "$word"',
    `  [ "$word$seen" != restore ] || { seen=.; ${setting}; set -- "$@" ${flags}; }`,
    'done',
  ]
  const shell = isElsewhere ? '#!/usr/bin/env -S -C / sh' : '#!/bin/sh'
  return [shell, ...deleting(bundle), ...(restore ? restoring : []), `exec ${quoted(runc)} "$@"`, ''].join('\n')
}

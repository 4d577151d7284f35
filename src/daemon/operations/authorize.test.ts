import { describe, expect, it } from 'vitest'
import type { Caller, ProcessFacts, Snapshot } from '../../plugins/contract/job.js'
import { mayUseTree, visiblePart } from './authorize.js'

const caller = (uid: number): Caller => ({ uid, gid: uid, groups: [], pid: 1 })
const process = (uids: readonly number[]): ProcessFacts =>
  ({
    pid: 7,
    name: 'x',
    args: ['x'],
    uids,
    executable: '/x',
    workingDirectory: '/secret',
    rootDirectory: '/',
    files: [{ path: '/secret/f' }],
  }) as unknown as ProcessFacts
const tree = (...uids: number[][]): Snapshot =>
  ({ processes: uids.map(process), sockets: [{ local: '@s' }], mounts: [{ path: '/m' }] }) as unknown as Snapshot

const OWN = tree([1000, 1000, 1000, 1000])
const SETUID = tree([1000, 1000, 1000, 1000], [1000, 0, 0, 0])

describe('a tree', () => {
  it('is for its owner and for root', () => {
    expect(() => {
      mayUseTree(caller(1000), OWN.processes)
      mayUseTree(caller(0), SETUID.processes)
    }).not.toThrow()
    expect(() => {
      mayUseTree(caller(1000), SETUID.processes)
    }).toThrow('process 7 (x) belongs to another user')
  })

  it('shows others no files, directories, sockets and mounts', () => {
    expect(visiblePart(caller(1000), OWN)).toBe(OWN)
    expect(visiblePart(caller(0), SETUID)).toBe(SETUID)
    const shown = visiblePart(caller(1000), SETUID)
    expect(JSON.stringify(shown)).not.toMatch(/secret|@s|\/m/)
    expect(shown.processes[1]).toMatchObject({ pid: 7, args: ['x'] })
  })
})

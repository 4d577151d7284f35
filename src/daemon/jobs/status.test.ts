import { describe, expect, it } from 'vitest'
import type { JobRecord } from './job.js'
import { statusOf } from './status.js'

const JOB = { pid: 7, startTicks: '100', bootId: 'b', hostId: 'h', state: 'running', frozen: false } as JobRecord
const HERE = { hostId: 'h', bootId: 'b' }
const live = (state: string, startTicks = '100') => ({ state, startTicks })

describe('statusOf', () => {
  it.each([
    ['R', 'running'],
    ['S', 'sleep'],
    ['T', 'stop'],
    ['t', 'stop'],
    ['I', 'idle'],
    ['D', 'blocked'],
    ['W', 'wait'],
    ['L', 'lock'],
  ])('%s is %s', (letter, word) => expect(statusOf(JOB, live(letter), HERE)).toEqual({ word, isRunning: true, isFrozen: false }))
  it('does not take another process for the job', () => {
    const halted = { word: 'halted', isRunning: false, isFrozen: false }
    expect(statusOf(JOB, undefined, HERE)).toEqual(halted)
    expect(statusOf(JOB, live('R', '101'), HERE)).toEqual(halted)
    expect(statusOf({ ...JOB, bootId: 'earlier' }, live('R'), HERE)).toEqual(halted)
    expect(statusOf({ ...JOB, state: 'ended' }, live('R'), HERE)).toEqual(halted)
    expect(statusOf(JOB, live('X'), HERE)).toEqual(halted)
  })
  it('shows what is neither running nor ended', () => {
    expect(statusOf(JOB, live('Z'), HERE)).toMatchObject({ word: 'zombie', isRunning: false })
    expect(statusOf({ ...JOB, hostId: 'else' }, live('R'), HERE)).toMatchObject({ word: 'remote', isRunning: false })
    expect(statusOf({ ...JOB, state: 'starting' }, undefined, HERE)).toMatchObject({ word: 'starting', isRunning: false })
    expect(statusOf({ ...JOB, frozen: true }, live('T'), HERE)).toEqual({ word: 'stop', isRunning: true, isFrozen: true })
  })
})

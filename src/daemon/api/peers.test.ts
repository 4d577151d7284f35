import { EventEmitter } from 'node:events'
import { Metadata } from '@grpc/grpc-js'
import { Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import { Peers } from './peers.js'

const callOn = (peer: string, metadata = new Metadata()) => ({ metadata, getPeer: () => peer })
const caller = (uid: number) => ({ uid, gid: 0, groups: [], pid: 0 })

describe('Peers', () => {
  it('forgets a connection when it closes', async () => {
    const peers = new Peers(undefined)
    const socket = new Socket()
    peers.admit(socket, caller(7))
    const name = socket.remoteAddress!
    expect(peers.callerOf(callOn(name))).toEqual(caller(7))
    socket.destroy()
    await EventEmitter.once(socket, 'close')
    expect(() => peers.callerOf(callOn(name))).toThrow(expect.objectContaining({ code: 'PERMISSION_DENIED' }))
  })

  it('knows nobody by a name it did not give', () => {
    const peers = new Peers(undefined)
    peers.admit(new Socket(), caller(0))
    for (const name of ['unknown', '', '127.0.0.1:1', 'peer-1']) expect(() => peers.callerOf(callOn(name))).toThrow()
  })

  it('takes a token for nothing on a connection with credentials', () => {
    const peers = new Peers('t'.repeat(32))
    const socket = new Socket()
    peers.admit(socket, caller(7))
    const metadata = new Metadata()
    metadata.set('authorization', `Bearer ${'t'.repeat(32)}`)
    expect(peers.callerOf(callOn(socket.remoteAddress!, metadata)).uid).toBe(7)
  })
})

/** Small things only the addon can ask of the kernel. */
import { readlinkSync } from 'node:fs'
import { native, shimPath } from '../../../addon/index.js'
import type { Caller } from '../../plugins/contract/job.js'

export { shimPath }

/** SO_PEERCRED and SO_PEERGROUPS of a connected unix socket. */
export const peerCredentials = (socketFd: number): Caller => native.peerCredentials(socketFd)

/** One datagram to the service manager (sd_notify(3)). */
export const notifyServiceManager = (socketPath: string, message: string): void => {
  native.sdNotify(socketPath, message)
}

/** Inode of a namespace of this process. */
export const ownNamespace = (kind: 'mnt' | 'net' | 'pid' | 'user' | 'cgroup'): string =>
  /\d+/.exec(readlinkSync(`/proc/self/ns/${kind}`))?.[0] ?? ''

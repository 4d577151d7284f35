/** Sockets the daemon listens on. A unix socket replaces a dead one, never a live one, and is at no time wider open than configured. */
import { execFile } from 'node:child_process'
import { chmodSync, chownSync, lstatSync, mkdirSync, unlinkSync, type Stats } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { CedanaError, reasonOf } from '../../plugins/contract/errors.js'

export interface Listener {
  /** The port that the kernel chose, where 0 was asked for. */
  readonly port: number | undefined
  /** No more connections; the socket file goes when it is still ours. */
  close(): void
}

const errorOf = (thrown: unknown): NodeJS.ErrnoException => thrown as NodeJS.ErrnoException

function listening(server: Server, listen: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('listening', resolve)
    server.once('error', reject)
    listen()
  })
}

/** Undefined when nothing is there. */
function look(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false })
}
const isSame = (one: Stats | undefined, other: Stats | undefined): boolean =>
  one !== undefined && other !== undefined && one.ino === other.ino && one.dev === other.dev

/** Whether somebody answers on the socket. Only a refused connection says that nobody does. */
function isAlive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path)
    const answer = (alive: boolean): void => {
      probe.destroy()
      resolve(alive)
    }
    probe.once('connect', () => answer(true))
    probe.once('error', (error) => answer(!['ECONNREFUSED', 'ENOENT'].includes(errorOf(error).code ?? '')))
  })
}

/** Throws HOST_UNFIT when a daemon answers there, or when it is no socket. */
export async function removeStale(path: string): Promise<void> {
  const found = look(path)
  if (found === undefined) return
  if (!found.isSocket())
    throw new CedanaError('HOST_UNFIT', `${path} exists and is not a socket`, { hint: 'move it away, or choose another address' })
  if (await isAlive(path)) {
    throw new CedanaError('HOST_UNFIT', `a daemon is already listening at ${path}`, { hint: 'stop it first, or choose another address' })
  }
  // Another daemon may have replaced it while we asked.
  if (isSame(found, look(path))) unlinkSync(path)
}

/** Number of a group, undefined when there is none of that name. */
async function groupId(name: string): Promise<number | undefined> {
  if (name === '') return undefined
  try {
    const { stdout } = await promisify(execFile)('getent', ['group', name])
    const id = Number(stdout.split(':')[2])
    return Number.isInteger(id) ? id : undefined
  } catch {
    return undefined
  }
}

export interface UnixOptions {
  readonly mode: number
  /** May connect, where it exists. */
  readonly group: string
}

export async function listenUnix(path: string, { mode, group }: UnixOptions, onSocket: (socket: Socket) => void): Promise<Listener> {
  const server = createServer(onSocket)
  let own: Stats | undefined
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 })
    await removeStale(path)
    const gid = await groupId(group)
    // Binding happens before listen() returns, so the narrow mask covers exactly it.
    const mask = process.umask(0o177)
    const bound = listening(server, () => {
      try {
        server.listen(path)
      } finally {
        process.umask(mask)
      }
    })
    await bound
    own = look(path)
    if (gid !== undefined && process.getuid?.() === 0) chownSync(path, 0, gid)
    chmodSync(path, mode)
  } catch (thrown) {
    if (server.listening) server.close()
    if (thrown instanceof CedanaError) throw thrown
    throw new CedanaError('HOST_UNFIT', `cannot listen at ${path}: ${reasonOf(thrown)}`, { cause: thrown })
  }
  return {
    port: undefined,
    close: () => {
      // Closing makes libuv unlink the path, whosever socket is there by now: then it stays open, unreachable, until the process ends.
      if (isSame(own, look(path))) server.close()
      else server.unref()
    },
  }
}

export async function listenTcp(host: string, port: number, onSocket: (socket: Socket) => void): Promise<Listener> {
  const server = createServer({ noDelay: true }, onSocket)
  try {
    await listening(server, () => server.listen(port, host))
  } catch (thrown) {
    const inUse = errorOf(thrown).code === 'EADDRINUSE' ? { hint: 'stop what listens there, or choose another address' } : {}
    throw new CedanaError('HOST_UNFIT', `cannot listen at ${host}:${port}: ${reasonOf(thrown)}`, { cause: thrown, ...inUse })
  }
  const address = server.address()
  return { port: typeof address === 'object' ? address?.port : undefined, close: () => void server.close() }
}

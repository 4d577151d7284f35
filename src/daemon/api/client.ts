/** The daemon as an Engine, over gRPC. Its time is part of every command's: it loads as little as it can. */
import { access, constants } from 'node:fs/promises'
import { CedanaError } from '../../plugins/contract/errors.js'
import { CallFailed, Channel, type ClientCall } from '../../plugins/contract/grpc.js'
import type { AttachInput, AttachOutput, Progress, Verbs } from '../operations/verbs.js'
import type { Protocol } from '../config.js'
import * as codec from './codec.js'
import { formatEndpoint, MAX_MESSAGE_BYTES, parseEndpoint, type Endpoint } from './endpoint.js'
import { timeLimit, type AskOptions, type Engine } from './engine.js'
import { DaemonServiceService as service, type Progress as WireProgress } from './gen/cedana.js'
import { fromStatus } from './status.js'
import { bearer, readToken, TOKEN_KEY } from './token.js'

export type { AskOptions, Engine } from './engine.js'

export interface ConnectOptions {
  readonly protocol: Protocol
  /** Empty: the default of the protocol. */
  readonly address: string
  /** Wait for a daemon that is not up yet, as long as the time limit of the call. */
  readonly waitForReady: boolean
  /** File with the token; read only for protocol tcp. */
  readonly tokenFile: string
}

interface Connection {
  readonly channel: Channel
  readonly endpoint: Endpoint
  /** Sent with each call. */
  readonly headers: Readonly<Record<string, string>>
}

/** Nothing is sent before the first call. */
export function connect({ protocol, address, waitForReady, tokenFile }: ConnectOptions): Engine {
  const endpoint = parseEndpoint(protocol, address)
  const headers: Record<string, string> = endpoint.protocol === 'tcp' ? { [TOKEN_KEY]: bearer(readToken(tokenFile)) } : {}
  const to = endpoint.protocol === 'unix' ? { path: endpoint.path } : { host: endpoint.host, port: endpoint.port, noDelay: true }
  return engine({ channel: new Channel(to, { maxMessageBytes: MAX_MESSAGE_BYTES, waitForReady }), endpoint, headers })
}

function engine(to: Connection): Engine {
  return {
    run: (request, options) => unary(to, service.run, codec.toWireRun(request), timeLimit('run', request, options), options),
    manage: (request, options) => unary(to, service.manage, codec.toWireManage(request), timeLimit('manage', request, options), options),
    dump: async (request, options) =>
      codec.fromWireDumped(await result(to, service.dump, codec.toWireDump(request), timeLimit('dump', request, options), options)),
    restore: async (request, options) =>
      codec.fromWireRestored(
        await result(to, service.restore, codec.toWireRestore(request), timeLimit('restore', request, options), options),
      ),
    freeze: (request, options) => unary(to, service.freeze, codec.toWireTarget(request), timeLimit('freeze', request, options), options),
    unfreeze: (request, options) =>
      unary(to, service.unfreeze, codec.toWireTarget(request), timeLimit('unfreeze', request, options), options),
    attach: (request, input, options) => attach(to, request, input, options),
    getJob: async (jid, options) => {
      const { job } = await unary(to, service.getJob, { jid }, timeLimit('getJob', undefined, options), options)
      if (job === undefined) throw new CedanaError('BUG', `the daemon sent no job for ${jid}`)
      return codec.fromWireJob(job)
    },
    listJobs: async (filter, options) => {
      const request = { ...filter, jids: [...filter.jids] }
      return (await unary(to, service.listJobs, request, timeLimit('listJobs', filter, options), options)).jobs.map(codec.fromWireJob)
    },
    killJobs: async (request, options) => {
      const wire = { ...request, jids: [...request.jids] }
      return (await unary(to, service.killJobs, wire, timeLimit('killJobs', request, options), options)).messages
    },
    deleteJobs: async (request, options) => {
      const wire = { ...request, jids: [...request.jids] }
      return (await unary(to, service.deleteJobs, wire, timeLimit('deleteJobs', request, options), options)).messages
    },
    listCheckpoints: async (jid, options) =>
      (await unary(to, service.listCheckpoints, { jid }, timeLimit('listCheckpoints', undefined, options), options)).checkpoints,
    inspectCheckpoint: async (id, options) => {
      const response = await unary(to, service.inspectCheckpoint, { id }, timeLimit('inspectCheckpoint', undefined, options), options)
      const { checkpoint, manifest = {}, contents = {} } = response
      if (checkpoint === undefined) throw new CedanaError('BUG', `the daemon sent no checkpoint for ${id}`)
      return { checkpoint, manifest, contents }
    },
    verifyCheckpoint: (id, options) =>
      unary(to, service.verifyCheckpoint, { id }, timeLimit('verifyCheckpoint', undefined, options), options),
    exportCheckpoint: (request, options) =>
      unary(to, service.exportCheckpoint, request, timeLimit('exportCheckpoint', request, options), options),
    deleteCheckpoint: (id, options) =>
      unary(to, service.deleteCheckpoint, { id }, timeLimit('deleteCheckpoint', undefined, options), options),
    query: async (request, options) =>
      codec.fromWireQueried(await unary(to, service.query, codec.toWireQuery(request), timeLimit('query', request, options), options)),
    check: async (request, options) => (await unary(to, service.check, request, timeLimit('check', request, options), options)).sections,
    listPlugins: async (request, options) =>
      (await unary(to, service.listPlugins, request, timeLimit('listPlugins', request, options), options)).plugins.map(
        codec.fromWirePlugin,
      ),
    reloadPlugins: async (options) =>
      (await unary(to, service.reloadPlugins, {}, timeLimit('reloadPlugins', undefined, options), options)).plugins.map(
        codec.fromWirePlugin,
      ),
    reload: async (options) => {
      const { changed, atNextStart, plugins } = await unary(to, service.reload, {}, timeLimit('reload', undefined, options), options)
      return { changed, atNextStart, plugins: plugins.map(codec.fromWirePlugin) }
    },
    version: (options) => unary(to, service.version, {}, timeLimit('version', undefined, options), options),
    close: () => to.channel.close(),
  }
}

interface Method<Q, R> {
  readonly path: string
  readonly requestSerialize: (request: Q) => Buffer
  readonly responseDeserialize: (bytes: Buffer) => R
}

/** What happened, from a failed call; for one that never reached the daemon, why. */
async function failure({ endpoint }: Connection, thrown: unknown): Promise<CedanaError> {
  if (!(thrown instanceof CallFailed)) return CedanaError.from(thrown)
  const error = fromStatus(thrown)
  if (error.code !== 'DAEMON_UNREACHABLE') return error
  const where = formatEndpoint(endpoint)
  const start = { cause: thrown, hint: 'start it with: cedana daemon start' }
  if (endpoint.protocol === 'tcp')
    return new CedanaError('DAEMON_UNREACHABLE', `cannot reach the daemon at ${where}: ${thrown.details}`, start)
  const reason = await access(endpoint.path, constants.W_OK).then(
    () => '',
    (cause: unknown) => (cause as NodeJS.ErrnoException).code ?? '',
  )
  if (reason === 'ENOENT') return new CedanaError('DAEMON_UNREACHABLE', `no daemon at ${where}`, start)
  if (reason === 'EACCES') {
    const hint = 'become a member of the group of the socket, or root'
    return new CedanaError('PERMISSION_DENIED', `may not connect to the daemon at ${where}`, { cause: thrown, hint })
  }
  return new CedanaError('DAEMON_UNREACHABLE', `no answer from the daemon at ${where}: ${thrown.details}`, start)
}

/** Opens a call, uses it, and says what went wrong with it. */
async function call<R>(
  to: Connection,
  path: string,
  limitMs: number,
  { signal }: AskOptions,
  use: (call: ClientCall) => Promise<R>,
): Promise<R> {
  try {
    return await use(await to.channel.open(path, { limitMs, signal, headers: to.headers }))
  } catch (thrown) {
    throw await failure(to, thrown)
  }
}

function unary<Q, R>(to: Connection, method: Method<Q, R>, request: Q, limitMs: number, options: AskOptions = {}): Promise<R> {
  return call(to, method.path, limitMs, options, async (asked) => {
    asked.finish(method.requestSerialize(request))
    return method.responseDeserialize(await asked.answer())
  })
}

type Event<R> =
  { readonly $case: 'progress'; readonly progress: WireProgress } | { readonly $case: 'result'; readonly result: R } | undefined

/** A verb that reports progress: everything before the result goes to `onProgress`. */
function result<Q, R>(
  to: Connection,
  method: Method<Q, { event: Event<R> }>,
  request: Q,
  limitMs: number,
  options: AskOptions = {},
): Promise<R> {
  return call(to, method.path, limitMs, options, async (asked) => {
    asked.finish(method.requestSerialize(request))
    let last: R | undefined
    for await (const message of asked.messages()) {
      const { event } = method.responseDeserialize(message)
      if (event?.$case === 'progress') options.onProgress?.(event.progress satisfies Progress)
      else if (event?.$case === 'result') last = event.result
    }
    if (last === undefined) throw new CedanaError('BUG', 'the daemon ended the call without a result')
    return last
  })
}

async function* attach(
  to: Connection,
  request: Parameters<Verbs['attach']>[1],
  input: AsyncIterable<AttachInput>,
  options: AskOptions = {},
): AsyncGenerator<AttachOutput> {
  const { path, requestSerialize, responseDeserialize } = service.attach
  const iterator = input[Symbol.asyncIterator]()
  let isOver = false
  let broken: unknown
  const send = async (asked: ClientCall): Promise<void> => {
    const start = { jid: request.jid, pid: request.pid, windowSize: request.windowSize }
    asked.write(requestSerialize({ input: { $case: 'start', start } }))
    for (let next = await iterator.next(); next.done !== true && !isOver; next = await iterator.next()) {
      if (!asked.write(requestSerialize(codec.toWireInput(next.value)))) await asked.drained()
    }
    asked.finish()
  }
  try {
    const limitMs = timeLimit('attach', undefined, options)
    const asked = await to.channel.open(path, { limitMs, signal: options.signal, headers: to.headers })
    // When the source of the input fails, the attachment ends with that error.
    send(asked).catch((thrown: unknown) => {
      broken = thrown
      asked.cancel()
    })
    for await (const message of asked.messages()) {
      const output = codec.fromWireOutput(responseDeserialize(message))
      if (output !== undefined) yield output
    }
  } catch (thrown) {
    throw await failure(to, broken ?? thrown)
  } finally {
    isOver = true
    void iterator.return?.()
  }
}

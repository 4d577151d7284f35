/** The daemon as an Engine, over gRPC. Loads grpc-js and nothing else: its time is part of every command's. */
import { once } from 'node:events'
import { access, constants } from 'node:fs/promises'
import { Client, credentials, Metadata, type CallOptions, type ClientReadableStream, type MethodDefinition, type ServiceError } from '@grpc/grpc-js'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { AttachInput, AttachOutput, Progress, Verbs } from '../operations/verbs.js'
import type { Protocol } from '../config.js'
import * as codec from './codec.js'
import { formatEndpoint, MAX_MESSAGE_BYTES, parseEndpoint, type Endpoint } from './endpoint.js'
import { timeLimit, type AskOptions, type Engine } from './engine.js'
import { DaemonServiceService as service, type AttachRequest, type AttachResponse, type Progress as WireProgress } from './gen/cedana.js'
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
  readonly client: Client
  readonly endpoint: Endpoint
  readonly metadata: Metadata
}

/** Nothing is sent before the first call. */
export function connect({ protocol, address, waitForReady, tokenFile }: ConnectOptions): Engine {
  const endpoint = parseEndpoint(protocol, address)
  const target = endpoint.protocol === 'unix' ? `unix:${endpoint.path}` : formatEndpoint(endpoint)
  const metadata = new Metadata({ waitForReady })
  if (endpoint.protocol === 'tcp') metadata.set(TOKEN_KEY, bearer(readToken(tokenFile)))
  const client = new Client(target, credentials.createInsecure(), {
    'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
    'grpc.max_send_message_length': MAX_MESSAGE_BYTES,
    'grpc.service_config_disable_resolution': 1,
    'grpc.enable_http_proxy': 0,
    // A verb acts on the machine: it is never repeated behind the caller's back.
    'grpc.enable_retries': 0,
    'grpc.enable_channelz': 0,
  })
  return engine({ client, endpoint, metadata })
}

function engine(to: Connection): Engine {
  return {
    run: (request, options) => unary(to, service.run, codec.toWireRun(request), timeLimit('run', request, options), options),
    manage: (request, options) => unary(to, service.manage, codec.toWireManage(request), timeLimit('manage', request, options), options),
    dump: async (request, options) =>
      codec.fromWireDumped(await result(to, service.dump, codec.toWireDump(request), timeLimit('dump', request, options), options)),
    restore: async (request, options) =>
      codec.fromWireRestored(await result(to, service.restore, codec.toWireRestore(request), timeLimit('restore', request, options), options)),
    freeze: (request, options) => unary(to, service.freeze, codec.toWireTarget(request), timeLimit('freeze', request, options), options),
    unfreeze: (request, options) => unary(to, service.unfreeze, codec.toWireTarget(request), timeLimit('unfreeze', request, options), options),
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
    verifyCheckpoint: (id, options) => unary(to, service.verifyCheckpoint, { id }, timeLimit('verifyCheckpoint', undefined, options), options),
    deleteCheckpoint: (id, options) => unary(to, service.deleteCheckpoint, { id }, timeLimit('deleteCheckpoint', undefined, options), options),
    query: async (request, options) =>
      codec.fromWireQueried(await unary(to, service.query, codec.toWireQuery(request), timeLimit('query', request, options), options)),
    check: async (request, options) => (await unary(to, service.check, request, timeLimit('check', request, options), options)).sections,
    version: (options) => unary(to, service.version, {}, timeLimit('version', undefined, options), options),
    close: () => to.client.close(),
  }
}

type Method<Q, R> = Pick<MethodDefinition<Q, R>, 'path' | 'requestSerialize' | 'responseDeserialize'>

const callOptions = (limitMs: number): CallOptions => (limitMs > 0 ? { deadline: Date.now() + limitMs } : {})

/** Cancels the call when the signal says so; returns how to stop listening. */
function linkSignal(call: { cancel(): void }, signal: AbortSignal | undefined): () => void {
  const cancel = (): void => call.cancel()
  if (signal?.aborted === true) cancel()
  signal?.addEventListener('abort', cancel, { once: true })
  return () => signal?.removeEventListener('abort', cancel)
}

/** What happened, from a failed call; for one that never reached the daemon, why. */
async function failure({ endpoint }: Connection, thrown: unknown): Promise<CedanaError> {
  if (!isServiceError(thrown)) return CedanaError.from(thrown)
  const error = fromStatus(thrown)
  if (error.code !== 'DAEMON_UNREACHABLE') return error
  const where = formatEndpoint(endpoint)
  const start = { cause: thrown, hint: 'start it with: cedana daemon start' }
  if (endpoint.protocol === 'tcp') return new CedanaError('DAEMON_UNREACHABLE', `cannot reach the daemon at ${where}: ${thrown.details}`, start)
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
const isServiceError = (thrown: unknown): thrown is ServiceError => thrown instanceof Error && 'code' in thrown && 'details' in thrown && 'metadata' in thrown

async function unary<Q, R>(to: Connection, method: Method<Q, R>, request: Q, limitMs: number, { signal }: AskOptions = {}): Promise<R> {
  let unlink = (): void => {}
  try {
    return await new Promise<R>((resolve, reject) => {
      const call = to.client.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        to.metadata,
        callOptions(limitMs),
        (error, response) => (error === null ? resolve(response as R) : reject(error)),
      )
      unlink = linkSignal(call, signal)
    })
  } catch (thrown) {
    throw await failure(to, thrown)
  } finally {
    unlink()
  }
}

type Event<R> = { readonly $case: 'progress'; readonly progress: WireProgress } | { readonly $case: 'result'; readonly result: R } | undefined

/** A verb that reports progress: everything before the result goes to `onProgress`. */
async function result<Q, R>(
  to: Connection,
  method: Method<Q, { event: Event<R> }>,
  request: Q,
  limitMs: number,
  { signal, onProgress }: AskOptions = {},
): Promise<R> {
  const call: ClientReadableStream<{ event: Event<R> }> = to.client.makeServerStreamRequest(
    method.path,
    method.requestSerialize,
    method.responseDeserialize,
    request,
    to.metadata,
    callOptions(limitMs),
  )
  const unlink = linkSignal(call, signal)
  let last: R | undefined
  try {
    for await (const { event } of call as AsyncIterable<{ event: Event<R> }>) {
      if (event?.$case === 'progress') onProgress?.(event.progress satisfies Progress)
      else if (event?.$case === 'result') last = event.result
    }
  } catch (thrown) {
    throw await failure(to, thrown)
  } finally {
    unlink()
  }
  if (last === undefined) throw new CedanaError('BUG', 'the daemon ended the call without a result')
  return last
}

async function* attach(
  to: Connection,
  request: Parameters<Verbs['attach']>[1],
  input: AsyncIterable<AttachInput>,
  options: AskOptions = {},
): AsyncGenerator<AttachOutput> {
  const { path, requestSerialize, responseDeserialize } = service.attach
  const call = to.client.makeBidiStreamRequest<AttachRequest, AttachResponse>(
    path,
    requestSerialize,
    responseDeserialize,
    to.metadata,
    callOptions(timeLimit('attach', undefined, options)),
  )
  const unlink = linkSignal(call, options.signal)
  const iterator = input[Symbol.asyncIterator]()
  let isOver = false
  let end = (): void => {}
  const over = new Promise<void>((resolve) => (end = resolve))
  const send = async (): Promise<void> => {
    call.write({ input: { $case: 'start', start: { jid: request.jid, pid: request.pid, windowSize: request.windowSize } } })
    for (let next = await iterator.next(); next.done !== true && !isOver; next = await iterator.next()) {
      const hasRoom = call.write(codec.toWireInput(next.value))
      if (!hasRoom) await Promise.race([once(call, 'drain'), over])
    }
    call.end()
  }
  // When the source of the input fails, the attachment ends with that error.
  send().catch((cause: unknown) => call.destroy(CedanaError.from(cause)))
  try {
    for await (const message of call as AsyncIterable<AttachResponse>) {
      const output = codec.fromWireOutput(message)
      if (output !== undefined) yield output
    }
  } catch (thrown) {
    throw await failure(to, thrown)
  } finally {
    isOver = true
    unlink()
    call.cancel()
    end()
    void iterator.return?.()
  }
}

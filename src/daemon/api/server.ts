/** The daemon's gRPC server: one line per verb. */
import type { Socket } from 'node:net'
import { Server, ServerCredentials } from '@grpc/grpc-js'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Caller } from '../../plugins/contract/job.js'
import type { AttachInput, Call, Verbs } from '../operations/verbs.js'
import { Calls, type ServerLog } from './calls.js'
import * as codec from './codec.js'
import { formatEndpoint, isLoopback, MAX_MESSAGE_BYTES, type Endpoint } from './endpoint.js'
import { DaemonServiceService, type AttachRequest, type AttachResponse, type DaemonServiceServer } from './gen/cedana.js'
import { listenTcp, listenUnix, type Listener } from './listener.js'
import { Peers } from './peers.js'
import { ensureToken } from './token.js'

export interface ServeOptions {
  readonly endpoint: Endpoint
  /** Of the unix socket. */
  readonly mode: number
  readonly group: string
  /** Of callers over TCP; made when it does not exist. */
  readonly tokenFile: string
  /** SO_PEERCRED of a connected unix socket. */
  readonly peerCredentials: (socketFd: number) => Caller
  readonly log: ServerLog
}
export interface RunningServer {
  /** As clients write it. */
  readonly address: string
  /** No new calls; those that run get this long to end, then they are cancelled. */
  close(graceMs: number): Promise<void>
}

/** A cancelled operation still undoes what it did; after this the server closes on it. */
const UNDO_MS = 10_000

export async function serve(verbs: Verbs, options: ServeOptions): Promise<RunningServer> {
  const { endpoint, log } = options
  const peers = new Peers(endpoint.protocol === 'tcp' ? ensureToken(options.tokenFile) : undefined)
  const calls = new Calls(peers, log)
  const server = new Server({
    'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
    'grpc.max_send_message_length': MAX_MESSAGE_BYTES,
    'grpc.enable_channelz': 0,
  })
  server.addService(DaemonServiceService, service(verbs, calls))
  // Loaded here: the CLI, which shares this bundle, does without.
  const { addStandardServices } = await import('./standard.js')
  const stopServing = addStandardServices(server)
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure())
  const listener = await listen(options, peers, (socket) => injector.injectConnection(socket))
  const address = formatEndpoint(endpoint.protocol === 'tcp' ? { ...endpoint, port: listener.port ?? endpoint.port } : endpoint)
  return {
    address,
    close: async (graceMs) => {
      stopServing()
      listener.close()
      await Promise.race([calls.stop(graceMs), new Promise((resolve) => setTimeout(resolve, graceMs + UNDO_MS).unref())])
      await new Promise<void>((resolve) => {
        // Connections that stay open without a call.
        setTimeout(() => server.forceShutdown(), 500).unref()
        server.tryShutdown(() => resolve())
      })
    },
  }
}

async function listen(
  { endpoint, mode, group, peerCredentials, log }: ServeOptions,
  peers: Peers,
  inject: (socket: Socket) => void,
): Promise<Listener> {
  if (endpoint.protocol === 'tcp') {
    if (!isLoopback(endpoint.host)) log.warn({ address: formatEndpoint(endpoint) }, 'listening beyond this machine, without encryption')
    return listenTcp(endpoint.host, endpoint.port, (socket) => {
      peers.admit(socket, 'by-token')
      inject(socket)
    })
  }
  return listenUnix(endpoint.path, { mode, group }, (socket) => {
    try {
      peers.admit(socket, peerCredentials(descriptorOf(socket)))
      inject(socket)
    } catch (cause) {
      log.warn({ error: CedanaError.from(cause).message }, 'connection refused: no credentials')
      socket.destroy()
    }
  })
}

/** Node has no public name for it. */
function descriptorOf(socket: Socket): number {
  const fd = (socket as Socket & { readonly _handle?: { readonly fd?: number } })._handle?.fd
  if (fd === undefined || fd < 0) throw new CedanaError('BUG', 'a connected socket without a descriptor')
  return fd
}

const service = (verbs: Verbs, { unary, withProgress, duplex }: Calls): DaemonServiceServer => ({
  run: unary(async (call, request) => codec.toWireStarted(await verbs.run(call, codec.fromWireRun(request)))),
  manage: unary(
    async (call, request) => codec.toWireStarted(await verbs.manage(call, codec.fromWireManage(request))),
    ({ upcoming }) => upcoming,
  ),
  dump: withProgress(async (call, request) => codec.toWireDumped(await verbs.dump(call, codec.fromWireDump(request)))),
  restore: withProgress(async (call, request) => codec.toWireRestored(await verbs.restore(call, codec.fromWireRestore(request)))),
  freeze: unary((call, request) => verbs.freeze(call, codec.fromWireTarget(request))),
  unfreeze: unary((call, request) => verbs.unfreeze(call, codec.fromWireTarget(request))),
  attach: duplex((call, input) => attach(verbs, call, input)),
  getJob: unary(async (call, { jid }) => ({ job: codec.toWireJob(await verbs.getJob(call, jid)) })),
  listJobs: unary(async (call, filter) => ({ jobs: (await verbs.listJobs(call, filter)).map(codec.toWireJob) })),
  killJobs: unary(async (call, request) => ({ messages: [...(await verbs.killJobs(call, request))] })),
  deleteJobs: unary(async (call, request) => ({ messages: [...(await verbs.deleteJobs(call, request))] })),
  listCheckpoints: unary(async (call, { jid }) => ({ checkpoints: [...(await verbs.listCheckpoints(call, jid))] })),
  inspectCheckpoint: unary(async (call, { id }) => codec.toWireInspected(await verbs.inspectCheckpoint(call, id))),
  verifyCheckpoint: unary((call, { id }) => verbs.verifyCheckpoint(call, id)),
  exportCheckpoint: unary((call, request) => verbs.exportCheckpoint(call, request)),
  deleteCheckpoint: unary((call, { id }) => verbs.deleteCheckpoint(call, id)),
  query: unary(async (call, request) => codec.toWireQueried(await verbs.query(call, codec.fromWireQuery(request)))),
  check: unary(async (call, request) => ({ sections: (await verbs.check(call, request)).map(codec.toWireSection) })),
  listPlugins: unary(async (call, request) => ({ plugins: (await verbs.listPlugins(call, request)).map(codec.toWirePlugin) })),
  reloadPlugins: unary(async (call) => ({ plugins: (await verbs.reloadPlugins(call)).map(codec.toWirePlugin) })),
  reload: unary(async (call) => {
    const { changed, atNextStart, plugins } = await verbs.reload(call)
    return { changed: [...changed], atNextStart: [...atNextStart], plugins: plugins.map(codec.toWirePlugin) }
  }),
  version: unary(() => verbs.version()),
})

async function* attach(verbs: Verbs, call: Call, messages: AsyncIterator<AttachRequest>): AsyncGenerator<AttachResponse> {
  const first = await messages.next()
  if (first.done === true || first.value.input?.$case !== 'start')
    throw new CedanaError('BAD_OPTIONS', 'the first message of an attachment must be its start')
  for await (const output of verbs.attach(call, first.value.input.start, inputs(messages))) yield codec.toWireOutput(output)
}

async function* inputs(messages: AsyncIterator<AttachRequest>): AsyncGenerator<AttachInput> {
  for (let next = await messages.next(); next.done !== true; next = await messages.next()) {
    const input = codec.fromWireInput(next.value)
    if (input !== undefined) yield input
  }
}

/** Where the daemon listens and clients connect: one address, by protocol. */
import { CedanaError } from '../../plugins/contract/errors.js'
import type { Protocol } from '../config.js'

export const DEFAULT_ADDRESS = { unix: '/run/cedana.sock', tcp: '127.0.0.1:8080', vsock: '' } as const satisfies Record<Protocol, string>

export type Endpoint =
  { readonly protocol: 'unix'; readonly path: string } | { readonly protocol: 'tcp'; readonly host: string; readonly port: number }

/** Of a request or an answer; page data never goes this way. */
export const MAX_MESSAGE_BYTES = 64 * 2 ** 20

/** Longest path of a unix socket: sun_path less its final zero. */
const MAX_PATH = 107

export function parseEndpoint(protocol: Protocol, address: string): Endpoint {
  const text = address === '' ? DEFAULT_ADDRESS[protocol] : address
  switch (protocol) {
    case 'unix': {
      const path = text.replace(/^unix:(\/\/(?=\/))?/, '')
      if (!path.startsWith('/')) throw new CedanaError('BAD_OPTIONS', `address ${text} is not an absolute path, as protocol unix needs`)
      if (Buffer.byteLength(path) > MAX_PATH)
        throw new CedanaError('BAD_OPTIONS', `address ${path} is longer than the ${MAX_PATH} bytes of a unix socket`)
      return { protocol, path }
    }
    case 'tcp': {
      const match = /^(?:\[([^\]]+)\]|([^:]*)):(\d+)$/.exec(text)
      const port = Number(match?.[3])
      if (match === null || port > 65535) throw new CedanaError('BAD_OPTIONS', `address ${text} is not HOST:PORT, as protocol tcp needs`)
      return { protocol, host: match[1] ?? (match[2] || '127.0.0.1'), port }
    }
    case 'vsock':
      throw new CedanaError('HOST_UNFIT', 'protocol vsock is not supported: Node.js has no vsock sockets', {
        hint: 'use protocol unix or tcp',
      })
  }
}

export const formatEndpoint = (endpoint: Endpoint): string =>
  endpoint.protocol === 'unix' ? endpoint.path : `${endpoint.host.includes(':') ? `[${endpoint.host}]` : endpoint.host}:${endpoint.port}`

export const isLoopback = (host: string): boolean => host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host)

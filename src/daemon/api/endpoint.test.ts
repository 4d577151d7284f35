import { describe, expect, it } from 'vitest'
import { formatEndpoint, isLoopback, parseEndpoint } from './endpoint.js'

describe('parseEndpoint', () => {
  it.each([
    ['unix', '', '/run/cedana.sock'],
    ['unix', 'unix:///a/b', '/a/b'],
    ['unix', 'unix:/a', '/a'],
    ['tcp', '', '127.0.0.1:8080'],
    ['tcp', ':9', '127.0.0.1:9'],
    ['tcp', '[::1]:9', '[::1]:9'],
    ['tcp', 'host:65535', 'host:65535'],
  ] as const)('%s %s', (protocol, address, shown) => expect(formatEndpoint(parseEndpoint(protocol, address))).toBe(shown))

  it.each([
    ['unix', 'relative', 'BAD_OPTIONS'],
    ['unix', `/${'x'.repeat(107)}`, 'BAD_OPTIONS'],
    ['tcp', 'host', 'BAD_OPTIONS'],
    ['tcp', 'host:65536', 'BAD_OPTIONS'],
    ['tcp', '/run/x', 'BAD_OPTIONS'],
    ['vsock', '1:2', 'HOST_UNFIT'],
  ] as const)('refuses %s %s', (protocol, address, code) =>
    expect(() => parseEndpoint(protocol, address)).toThrow(expect.objectContaining({ code })),
  )

  it('knows what stays on this machine', () => {
    expect(['127.0.0.1', '::1', 'localhost', '127.9.9.9'].every(isLoopback)).toBe(true)
    expect(['0.0.0.0', '::', '10.0.0.1', '127.evil.com'].some(isLoopback)).toBe(false)
  })
})

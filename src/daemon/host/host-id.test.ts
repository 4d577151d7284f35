import { describe, expect, it } from 'vitest'
import { hostId } from './host-id.js'

const files = (contents: Record<string, string>) => (path: string) => {
  const text = contents[path]
  if (text === undefined) throw new Error('ENOENT')
  return text
}
const DMI = '/sys/class/dmi/id/product_uuid'
const MACHINE = { '/etc/machine-id': '0123456789abcdef0123456789abcdef\n' }

describe('hostId', () => {
  it('is that of the firmware, of the installation, of the boot', () => {
    expect(hostId(files({ [DMI]: 'AAAAAAAA-1111-2222-3333-444444444444\n', ...MACHINE }))).toBe('aaaaaaaa-1111-2222-3333-444444444444')
    expect(hostId(files(MACHINE))).toBe('01234567-89ab-cdef-0123-456789abcdef')
    expect(hostId(files({ '/proc/sys/kernel/random/boot_id': 'b\n' }))).toBe('b')
  })
  it('does not believe firmware that has none', () => {
    expect(hostId(files({ [DMI]: '00000000-0000-0000-0000-000000000000', ...MACHINE }))).toMatch(/^0123/)
    expect(hostId(files({ [DMI]: 'Not Settable', ...MACHINE }))).toMatch(/^0123/)
  })
  it('finds one here', () => expect(hostId()).toMatch(/^[0-9a-f-]{36}$/))
})

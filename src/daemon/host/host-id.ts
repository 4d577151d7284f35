/** The id of this machine: that of its firmware, else of its installation, else of this boot. */
import { readFileSync } from 'node:fs'

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
/** What firmware says that was never given an id. */
const isBlank = (uuid: string): boolean => /^[0-]+$|^[f-]+$/.test(uuid)

export function hostId(read = (path: string): string => readFileSync(path, 'utf8')): string {
  const text = (path: string): string => {
    try {
      return read(path).trim().toLowerCase()
    } catch {
      return ''
    }
  }
  const firmware = text('/sys/class/dmi/id/product_uuid')
  if (UUID.test(firmware) && !isBlank(firmware)) return firmware
  const installation = text('/etc/machine-id').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
  if (UUID.test(installation) && !isBlank(installation)) return installation
  return text('/proc/sys/kernel/random/boot_id')
}

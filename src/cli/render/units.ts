/** Sizes, ages and durations in the words of the command line. */
const SIZE_UNITS = ['bytes', 'KiB', 'MiB', 'GiB'] as const

/** `12 MiB`; empty for nothing. */
export function formatSize(bytes: number): string {
  if (bytes <= 0) return ''
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < SIZE_UNITS.length - 1) {
    value /= 1024
    unit++
  }
  return `${value.toFixed(0)} ${SIZE_UNITS[unit]}`
}

const AGE_UNITS = [
  { name: 'second', one: 'about a second', size: 1, count: 60 },
  { name: 'minute', one: 'about a minute', size: 60, count: 60 },
  { name: 'hour', one: 'about an hour', size: 3600, count: 24 },
  { name: 'day', one: 'one day', size: 86_400, count: 30 },
  { name: 'month', one: 'one month', size: 30 * 86_400, count: 12 },
  { name: 'year', one: 'one year', size: 365 * 86_400, count: Infinity },
] as const

/** `5 minutes ago`; empty for a time that is not set. */
export function formatAge(time: number, now: number): string {
  if (time <= 0) return ''
  const seconds = Math.max(0, now - time) / 1000
  const unit = AGE_UNITS.find(({ size, count }) => Math.round(seconds / size) < count) ?? AGE_UNITS[5]
  const value = Math.max(1, Math.round(seconds / unit.size))
  return value === 1 ? `${unit.one} ago` : `${value} ${unit.name}s ago`
}

/** Local `YYYY-MM-DD HH:MM:SS`. */
export function formatTime(time: number): string {
  if (time <= 0) return ''
  const date = new Date(time)
  const two = (value: number): string => String(value).padStart(2, '0')
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`
}

const DURATION_UNITS = [
  { name: 's', ns: 1e9 },
  { name: 'ms', ns: 1e6 },
  { name: 'us', ns: 1e3 },
  { name: 'ns', ns: 1 },
] as const
export type Precision = 'auto' | (typeof DURATION_UNITS)[number]['name']

/** `12.345ms`; the unit by size (auto) or as asked. */
export function formatDuration(ns: number, precision: Precision = 'auto'): string {
  const unit = DURATION_UNITS.find((one) => (precision === 'auto' ? ns >= one.ns : one.name === precision)) ?? DURATION_UNITS[3]
  return `${Number((ns / unit.ns).toFixed(unit.ns === 1 ? 0 : 3))}${unit.name}`
}

const MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }

/** `90`, `90s`, `1m30s`, `500ms` in milliseconds; a bare number is seconds. Undefined when it is no duration. */
export function parseDuration(text: string): number | undefined {
  if (/^\d+(\.\d+)?$/.test(text)) return Math.round(Number(text) * 1000)
  if (!/^(\d+(\.\d+)?(ms|s|m|h))+$/.test(text)) return undefined
  const parts = text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)
  return Math.round([...parts].reduce((sum, [, value, unit]) => sum + Number(value) * MS[unit!]!, 0))
}

/** What took how long: the profiling tables of an operation, and the same as a JSON file. */
import type { Step } from '../../daemon/api/engine.js'
import type { Style } from './style.js'
import { table, type Cell } from './table.js'
import { formatDuration, formatSize, type Precision } from './units.js'

interface Profile {
  readonly operation: string
  readonly steps: readonly Step[]
}

const ALIGNED = [{ header: '', align: 'right' }, { header: '' }, { header: '', align: 'right' }, { header: '' }] as const

const sum = (steps: readonly Step[], pick: (step: Step) => number): number => steps.reduce((total, step) => total + pick(step), 0)
const category = (step: Step): string => step.category || 'other'

export function profileText(
  { operation, steps }: Profile,
  options: { readonly detailed: boolean; readonly precision: Precision; readonly style: Style },
): string {
  const { style, precision } = options
  const draw = (rows: readonly (readonly Cell[])[]): string => table(ALIGNED, rows, { style, headers: false })
  const duration = (ns: number): Cell => ({ text: formatDuration(ns, precision) })
  const total = sum(steps, (step) => step.durationNs)
  const footer: Cell[] = [
    duration(total),
    { text: '' },
    { text: formatSize(sum(steps, (step) => step.bytes)) },
    { text: `${operation} (total)`, colour: 'bold' },
  ]

  const shown = steps.filter((step) => step.durationNs > 0 || step.bytes > 0)
  const detail = shown.map((step): Cell[] => [
    duration(step.durationNs),
    { text: category(step), colour: step.category ? 'yellow' : 'grey' },
    { text: formatSize(step.bytes) },
    { text: step.name, colour: 'grey' },
  ])
  const categories = [...new Set(shown.map(category))].map((name): Cell[] => {
    const own = shown.filter((step) => category(step) === name)
    const time = sum(own, (step) => step.durationNs)
    const percent = total > 0 ? (time / total) * 100 : 0
    return [
      duration(time),
      { text: `${percent.toFixed(2)}%` },
      { text: formatSize(sum(own, (step) => step.bytes)) },
      { text: name, colour: 'yellow' },
    ]
  })
  const tables = [
    ...(options.detailed ? [draw([...detail, footer])] : []),
    ...(categories.length > 1 || !options.detailed ? [draw([...categories, footer])] : []),
  ]
  return `${tables.join('\n')}\n`
}

/** The profile as a file: durations in nanoseconds, io in bytes, zero values left out. */
export function profileJson({ operation, steps }: Profile): string {
  const entry = (name: string, durationNs: number, bytes: number): object => ({
    name,
    ...(durationNs > 0 && { duration: durationNs }),
    ...(bytes > 0 && { io: bytes }),
  })
  const components = steps.map((step) => ({
    ...entry(step.name, step.durationNs, step.bytes),
    ...(step.category && { category: step.category }),
  }))
  const whole = entry(
    operation,
    sum(steps, (step) => step.durationNs),
    sum(steps, (step) => step.bytes),
  )
  return `${JSON.stringify({ ...whole, components }, null, 2)}\n`
}

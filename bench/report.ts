/** Rows of a benchmark: ours against a peer of the same run (ratio of medians), or against a limit. */
import { median } from './measure.js'

export interface Row {
  readonly what: string
  readonly ours: readonly number[]
  readonly unit: string
  readonly peer?: readonly number[]
  readonly peerName?: string
  /** Ours may be at most this many times the peer … */
  readonly target?: number
  /** … plus this. */
  readonly allowance?: number
  /** Without such a target: the largest value allowed, the smallest with `atLeast`; a peer is only shown. With neither, the value is only shown. */
  readonly limit?: number
  readonly atLeast?: boolean
}

export interface Result {
  readonly what: string
  readonly unit: string
  readonly ours: number
  readonly peer: number | undefined
  readonly peerName: string | undefined
  readonly ratio: number | undefined
  readonly target: string
  readonly met: boolean
  readonly runs: { readonly ours: readonly number[]; readonly peer: readonly number[] | undefined }
}

const round = (value: number): string => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2))

export function evaluate(row: Row): Result {
  const ours = median(row.ours)
  const runs = { ours: row.ours, peer: row.peer }
  const common = { what: row.what, unit: row.unit, ours, peerName: row.peerName, runs }
  if (row.peer && row.target !== undefined) {
    const peer = median(row.peer)
    const allowance = row.allowance ?? 0
    const target = allowance > 0 ? `≤ ${row.target} × + ${round(allowance)} ${row.unit}` : `≤ ${row.target} ×`
    return { ...common, peer, ratio: ours / peer, target, met: ours <= row.target * peer + allowance }
  }
  const peer = row.peer && median(row.peer)
  const limit = row.limit
  if (limit === undefined) return { ...common, peer, ratio: peer && ours / peer, target: '', met: true }
  const target = `${row.atLeast ? '≥' : '≤'} ${limit} ${row.unit}`
  return { ...common, peer, ratio: peer && ours / peer, target, met: row.atLeast ? ours >= limit : ours <= limit }
}

export function table(results: readonly Result[]): string {
  const head = ['WHAT', 'OURS', 'PEER', 'RATIO', 'TARGET', '']
  const body = results.map((result) => [
    result.what,
    `${round(result.ours)} ${result.unit}`,
    result.peer === undefined ? '' : `${round(result.peer)} ${result.unit} (${result.peerName ?? ''})`,
    result.ratio === undefined ? '' : `${result.ratio.toFixed(2)} ×`,
    result.target,
    result.target === '' ? '' : result.met ? 'met' : 'missed',
  ])
  const widths = head.map((_, column) => Math.max(...[head, ...body].map((cells) => (cells[column] ?? '').length)))
  return [head, ...body]
    .map((cells) =>
      cells
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

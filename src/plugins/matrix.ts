/** Descriptions of plugins → the feature matrix. Claims only: test/contract proves them. */
import { FEATURES, VERBS } from './contract/runtime.js'
import type { RuntimeDescription } from './description.js'

export type Mark = 'stable' | 'experimental' | 'none' | 'missing' | 'broken'
/** Shown in tables. */
export const MARKS: Readonly<Record<Mark, { readonly sign: string; readonly meaning: string }>> = {
  stable: { sign: '✔', meaning: 'implemented' },
  experimental: { sign: '○', meaning: 'experimental' },
  none: { sign: '•', meaning: 'unimplemented' },
  missing: { sign: '—', meaning: 'not installed' },
  broken: { sign: '✖', meaning: 'incompatible' },
}

export interface MatrixColumn extends Pick<RuntimeDescription, 'name' | 'verbs' | 'features'> {
  /** Absent: it works. */
  readonly state?: 'missing' | 'broken'
}
export interface MatrixRow {
  readonly feature: string
  /** By name of plugin. */
  readonly marks: Readonly<Record<string, Mark>>
}

/** Groups of rows. */
export function featureMatrix(columns: readonly MatrixColumn[]): readonly (readonly MatrixRow[])[] {
  const group = (table: Readonly<Record<string, string>>, of: 'verbs' | 'features'): MatrixRow[] =>
    Object.entries(table).map(([key, feature]) => {
      const mark = (column: MatrixColumn): Mark => column.state ?? (column[of] as Readonly<Record<string, Mark | undefined>>)[key] ?? 'none'
      return { feature, marks: Object.fromEntries(columns.map((column) => [column.name, mark(column)])) }
    })
  return [group(VERBS, 'verbs'), group(FEATURES, 'features')]
}

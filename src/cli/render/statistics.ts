/** What an operation took, in the form of podman's --print-stats. Times in microseconds; nothing is in it that was not measured. */
import type { Step } from '../../daemon/api/engine.js'

interface Measured {
  readonly id: string
  readonly steps: readonly Step[]
  readonly criuStatistics: Readonly<Record<string, number>>
  /** Of the checkpoint that was made. */
  readonly size?: number
}

export function statistics(operation: 'checkpoint' | 'restore', { id, steps, criuStatistics, size }: Measured): object {
  const took = (some: readonly Step[]): number => Math.round(some.reduce((sum, { durationNs }) => sum + durationNs, 0) / 1000)
  const of = (category: string): readonly Step[] => steps.filter((step) => step.category === category)
  return {
    [`podman_${operation}_duration`]: took(steps),
    container_statistics: [
      {
        Id: id,
        [`runtime_${operation}_duration`]: took(of('criu')),
        ...(Object.keys(criuStatistics).length > 0 && { criu_statistics: criuStatistics }),
        ...(of('gpu').length > 0 && { gpu_duration: took(of('gpu')) }),
        ...(size !== undefined && { bytes_stored: size }),
      },
    ],
  }
}

/** One line on the terminal while an operation runs: shown after a second, redrawn in place, erased at the end. */
import type { Progress } from '../../daemon/api/engine.js'
import { formatSize } from './units.js'

const SHOW_AFTER_MS = 1000
const REDRAW_MS = 200
const ERASE = '\r\x1b[K'

interface Terminal {
  readonly isTTY?: boolean
  readonly columns?: number
  write(text: string): unknown
}

export class ProgressLine {
  private readonly startedAt: number
  private shownAt = 0
  private phase = ''

  /** `log` is told of each step, shown on the line or not. */
  constructor(
    private readonly terminal: Terminal,
    private readonly log: (text: string) => void = () => {},
    private readonly now: () => number = Date.now,
  ) {
    this.startedAt = now()
  }

  readonly update = (progress: Progress): void => {
    if (progress.phase !== this.phase) {
      this.end()
      this.log(progress.phase)
    }
    this.phase = progress.phase
    const now = this.now()
    if (this.terminal.isTTY !== true || now - this.startedAt < SHOW_AFTER_MS || now - this.shownAt < REDRAW_MS) return
    this.shownAt = now
    this.terminal.write(ERASE + progressText(progress, now - this.startedAt).slice(0, (this.terminal.columns ?? 80) - 1))
  }

  end(): void {
    if (this.shownAt > 0) this.terminal.write(ERASE)
    this.shownAt = 0
  }
}

export function progressText({ phase, bytes, totalBytes, frozen }: Progress, elapsedMs: number): string {
  const parts = [phase]
  if (bytes > 0) {
    const share = totalBytes > 0 ? ` of ${formatSize(totalBytes)} (${Math.min(100, Math.floor((bytes / totalBytes) * 100))}%)` : ''
    parts.push(`${formatSize(bytes)}${share}`, `${formatSize((bytes / elapsedMs) * 1000)}/s`)
  }
  parts.push(`${(elapsedMs / 1000).toFixed(0)} s`)
  if (frozen) parts.push('frozen')
  return parts.join('  ')
}

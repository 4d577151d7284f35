/** Finds the keys that detach in what is typed (ctrl-p ctrl-q). The beginning of the sequence is held back until it is known to be none. */
export const DEFAULT_DETACH_KEYS = 'ctrl-p,ctrl-q'

/** `ctrl-a,x` → bytes; undefined when it is no such list. Empty: no keys detach. */
export function parseDetachKeys(text: string): readonly number[] | undefined {
  if (text === '') return []
  const keys = text.split(',').map((key) => {
    const letter = /^ctrl-([a-z@[\\\]^_])$/.exec(key)?.[1]
    if (letter !== undefined) return letter.toUpperCase().charCodeAt(0) & 0x1f
    return /^[\x20-\x7e]$/.test(key) ? key.charCodeAt(0) : -1
  })
  return keys.includes(-1) ? undefined : keys
}

export class DetachKeys {
  private matched = 0

  constructor(private readonly keys: readonly number[]) {}

  /** What the job gets of these bytes, and whether the sequence is complete. */
  feed(bytes: Uint8Array): { readonly pass: Uint8Array; readonly isDetach: boolean } {
    const { keys } = this
    if (keys.length === 0) return { pass: bytes, isDetach: false }
    const pass: number[] = []
    for (const byte of bytes) {
      if (byte === keys[this.matched]) {
        this.matched++
        if (this.matched === keys.length) return { pass: Uint8Array.from(pass), isDetach: true }
        continue
      }
      pass.push(...keys.slice(0, this.matched))
      this.matched = byte === keys[0] ? 1 : 0
      if (this.matched === 0) pass.push(byte)
    }
    return { pass: Uint8Array.from(pass), isDetach: false }
  }
}

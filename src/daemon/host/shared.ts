/**
 * Lets callers share work that answers how things are. Whoever asks gets an answer that was begun after they asked: one that is under way is for those
 * before them, and all that come meanwhile share the next.
 */
export function shared<T>(work: () => Promise<T>): () => Promise<T> {
  let current: Promise<T> | undefined
  let next: Promise<T> | undefined
  const begin = (): Promise<T> => {
    next = undefined
    const begun = work()
    current = begun
    const over = (): void => {
      if (current === begun) current = undefined
    }
    begun.then(over, over)
    return begun
  }
  return () => {
    if (current === undefined) return begin()
    next ??= current.then(begin, begin)
    return next
  }
}

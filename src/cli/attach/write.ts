/** Writes and waits until there is room again: a slow reader slows the job, it does not fill our memory. */
export function write(stream: NodeJS.WriteStream, bytes: Uint8Array): Promise<void> {
  if (stream.destroyed || stream.write(bytes)) return Promise.resolve()
  return new Promise((resolve) => {
    const done = (): void => {
      stream.off('drain', done).off('close', done).off('error', done)
      resolve()
    }
    stream.on('drain', done).on('close', done).on('error', done)
  })
}

/** Resolves when everything written so far has left this process. */
export const flushed = (stream: NodeJS.WriteStream): Promise<void> =>
  stream.destroyed || stream.writableLength === 0 ? Promise.resolve() : new Promise((resolve) => void stream.write('', () => resolve()))

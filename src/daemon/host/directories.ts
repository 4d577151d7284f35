/** When entries of a directory come and go: one kernel watch per directory, whoever waits for whichever of its entries. */
import { existsSync, type FSWatcher, watch } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { CedanaError, reasonOf } from '../../plugins/contract/errors.js'

/** `isOver`: the directory is gone, or has another name; there is no more to come. */
type Listener = (isOver: boolean) => void

/** In the place of a name: every entry. */
const ANY = ''

class Directory {
  readonly #listeners = new Map<string, Set<Listener>>()
  readonly #watcher: FSWatcher

  constructor(
    readonly path: string,
    private readonly onEnd: () => void,
  ) {
    this.#watcher = watch(path, (_, name) => this.#changed(name))
    this.#watcher.on('error', () => this.#end())
  }

  add(name: string, listener: Listener): Disposable {
    const listeners = this.#listeners.get(name) ?? new Set()
    this.#listeners.set(name, listeners.add(listener))
    return {
      [Symbol.dispose]: () => {
        listeners.delete(listener)
        if (listeners.size === 0 && this.#listeners.get(name) === listeners) this.#listeners.delete(name)
        if (this.#listeners.size === 0) this.#close()
      },
    }
  }

  #changed(name: string | null): void {
    // The kernel's word of its own removal or renaming comes with its own name, as that of an entry of the same name would.
    if (name === null || name === basename(this.path)) return this.#end()
    // Nobody is to join the watch of a directory that may be another by now.
    open.delete(join(this.path, name))
    for (const key of [name, ANY]) for (const listener of [...(this.#listeners.get(key) ?? [])]) listener(false)
  }

  #end(): void {
    this.#close()
    for (const listeners of [...this.#listeners.values()]) for (const listener of [...listeners]) listener(true)
  }

  #close(): void {
    this.#watcher.close()
    this.onEnd()
  }
}

const open = new Map<string, Directory>()

/** Undefined when there is no such directory. */
function watchEntries(path: string, name: string, listener: Listener): Disposable | undefined {
  let directory = open.get(path)
  if (!directory) {
    try {
      const opened: Directory = new Directory(path, () => {
        if (open.get(path) === opened) open.delete(path)
      })
      open.set(path, (directory = opened))
    } catch (thrown) {
      const { code } = thrown as NodeJS.ErrnoException
      if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
      throw new CedanaError('HOST_UNFIT', `cannot watch directory ${path}: ${reasonOf(thrown)}`, {
        cause: thrown,
        ...(code === 'ENOSPC' || code === 'EMFILE' ? { hint: 'raise the sysctl fs.inotify.max_user_watches or max_user_instances' } : {}),
      })
    }
  }
  return directory.add(name, listener)
}

/** A directory that may come and go, and with it those above: always watched from where it would appear, and from within while it is there. */
export class FollowedDirectory implements Disposable {
  readonly #path: string
  #watches: Disposable[] = []

  constructor(
    path: string,
    private readonly onChange: () => void,
    private readonly onFailure: (error: CedanaError) => void,
  ) {
    this.#path = resolve(path)
    this.#follow()
  }

  #follow(): void {
    try {
      this[Symbol.dispose]()
      while (!this.#watchNearest());
    } catch (thrown) {
      this[Symbol.dispose]()
      this.onFailure(CedanaError.from(thrown))
    }
  }

  /** False when a directory was made meanwhile: there is a nearer one. */
  #watchNearest(): boolean {
    let child = this.#path
    for (; ; child = dirname(child)) {
      const watched = watchEntries(dirname(child), basename(child), () => this.#moved())
      if (!watched) continue
      this.#watches.push(watched)
      break
    }
    if (child !== this.#path) {
      if (!existsSync(child)) return true
      this[Symbol.dispose]()
      return false
    }
    const within = watchEntries(child, ANY, (isOver) => (isOver ? this.#moved() : this.onChange()))
    if (within) this.#watches.push(within)
    return true
  }

  #moved(): void {
    this.#follow()
    this.onChange()
  }

  [Symbol.dispose](): void {
    for (const watched of this.#watches.splice(0)) watched[Symbol.dispose]()
  }
}

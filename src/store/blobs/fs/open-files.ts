import type { FileHandle } from 'node:fs/promises'

interface Entry {
  readonly handle: Promise<FileHandle>
  users: number
  /** No longer in the table: closes when its last user is done. */
  forgotten: boolean
}

/** A file in use; `done` exactly once, when the reading is over. */
export interface FileInUse {
  readonly handle: FileHandle
  done(): void
}

/** Files kept open for reading, least recently used ones closed first. A file that is being read is never closed. */
export class OpenFiles {
  readonly #openFile: (path: string) => Promise<FileHandle>
  readonly #maxFiles: number
  readonly #entries = new Map<string, Entry>()

  constructor(openFile: (path: string) => Promise<FileHandle>, maxFiles: number) {
    this.#openFile = openFile
    this.#maxFiles = maxFiles
  }

  async use(path: string): Promise<FileInUse> {
    const entry = this.#entries.get(path) ?? { handle: this.#openFile(path), users: 0, forgotten: false }
    this.#entries.delete(path)
    this.#entries.set(path, entry) // youngest
    entry.users += 1
    this.#closeOldest()
    try {
      const handle = await entry.handle
      return { handle, done: () => this.#done(entry) }
    } catch (error) {
      if (this.#entries.get(path) === entry) this.#entries.delete(path)
      throw error
    }
  }

  /** The file is about to be deleted: those who read it may finish. */
  forget(path: string): void {
    const entry = this.#entries.get(path)
    if (!entry) return
    this.#entries.delete(path)
    entry.forgotten = true
    if (entry.users === 0) close(entry)
  }

  async close(): Promise<void> {
    for (const path of [...this.#entries.keys()]) this.forget(path)
  }

  #done(entry: Entry): void {
    entry.users -= 1
    if (entry.forgotten && entry.users === 0) close(entry)
    else this.#closeOldest()
  }

  #closeOldest(): void {
    for (const [path, entry] of this.#entries) {
      if (this.#entries.size <= this.#maxFiles) return
      if (entry.users === 0) this.forget(path)
    }
  }
}

const close = (entry: Entry): void => {
  entry.handle.then((handle) => handle.close()).catch(() => undefined) // was opened for reading: nothing can be lost
}

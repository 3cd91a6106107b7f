import { randomUUID } from 'node:crypto'
import * as nodeFiles from 'node:fs/promises'
import { join } from 'node:path'
import { ServiceError } from '../../../base/errors.ts'
import { failpoint } from '../../../base/failpoint.ts'
import { assertKey, type BlobStore } from '../blob-store.ts'
import { OpenFiles } from './open-files.ts'

/** The file functions that this adapter uses, so that a test can put faults beneath it. */
export type FileFunctions = Pick<typeof nodeFiles, 'open' | 'link' | 'unlink' | 'mkdir' | 'readdir' | 'stat' | 'readFile'>

const FOLDER_MODE = 0o700 // image bytes are nobody's business but the service's
const FILE_MODE = 0o600
const UNFINISHED = '.unfinished' // starts with a dot, so no key can name it
const MAX_OPEN_FILES = 64 // a boot reads a few packs over and over; well below the usual limit of 1,024 descriptors

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException | null)?.code

/**
 * Blobs as files below one folder; a key is the path. A blob is written under a name that no key can have, synced, linked to
 * its own name (`link` refuses to overwrite), and the folder is synced: only then does `put` resolve. After an fsync that
 * failed the kernel may have dropped the dirty pages and report success on the next one, so such a put fails for good and its
 * file is removed. One process writes to a folder at a time; what an earlier one left unfinished is swept when it is opened.
 */
export class FsBlobStore implements BlobStore {
  readonly #root: string
  readonly #files: FileFunctions
  readonly #open: OpenFiles
  /** Folders that are known to exist durably. */
  readonly #folders = new Set<string>()

  private constructor(root: string, files: FileFunctions) {
    this.#root = root
    this.#files = files
    this.#open = new OpenFiles((path) => files.open(path, 'r'), MAX_OPEN_FILES)
  }

  /** @param root made where it is absent; the folder above it must exist. @throws ServiceError `unavailable`, `no-space` */
  static async open(root: string, files: FileFunctions = nodeFiles): Promise<FsBlobStore> {
    const store = new FsBlobStore(root, files)
    await store.#makeFolder('').catch((error) => store.#fail(error, 'opening the store'))
    await store.#sweep().catch((error) => store.#fail(error, 'sweeping unfinished files'))
    return store
  }

  async get(key: string): Promise<Uint8Array> {
    assertKey(key)
    const bytes = await this.#files.readFile(this.#pathOf(key)).catch((error) => this.#failRead(error, key))
    return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length)
  }

  async read(key: string, offset: number, length: number, into?: Uint8Array): Promise<Uint8Array> {
    assertKey(key)
    const bytes = into ?? new Uint8Array(length)
    const file = await this.#open.use(this.#pathOf(key)).catch((error) => this.#failRead(error, key))
    try {
      let done = 0
      while (done < length) {
        const { bytesRead } = await file.handle
          .read(bytes, done, length - done, offset + done)
          .catch((error) => this.#failRead(error, key))
        if (bytesRead === 0)
          throw new ServiceError('corrupt', `Blob ${key} ends at ${offset + done}, before the bytes that were asked for.`, {
            key,
            offset,
            length,
          })
        done += bytesRead
      }
    } finally {
      file.done()
    }
    return bytes
  }

  async size(key: string): Promise<number> {
    assertKey(key)
    const { size } = await this.#files.stat(this.#pathOf(key)).catch((error) => this.#failRead(error, key))
    return size
  }

  async *list(prefix: string): AsyncIterable<string> {
    yield* this.#walk('', prefix)
  }

  async put(key: string, parts: readonly Uint8Array[]): Promise<void> {
    assertKey(key)
    const doing = `writing blob ${key}`
    const folder = key.split('/').slice(0, -1).join('/')
    await this.#makeFolder(folder).catch((error) => this.#fail(error, doing))
    const unfinished = join(this.#root, UNFINISHED, randomUUID())
    try {
      await this.#writeSynced(unfinished, parts).catch((error) => this.#fail(error, doing))
      const isNew = await this.#files.link(unfinished, this.#pathOf(key)).then(
        () => true,
        (error) => (codeOf(error) === 'EEXIST' ? false : this.#fail(error, doing)),
      )
      failpoint('blob:renamed')
      if (!isNew) await this.#assertSame(key, parts)
      await this.#syncFolder(folder).catch(async (error) => {
        if (isNew) await this.#files.unlink(this.#pathOf(key)).catch(() => undefined)
        return this.#fail(error, doing)
      })
      failpoint('blob:published')
    } finally {
      await this.#files.unlink(unfinished).catch(() => undefined) // what stays is swept at the next opening
    }
  }

  async delete(key: string): Promise<void> {
    assertKey(key)
    const path = this.#pathOf(key)
    this.#open.forget(path)
    try {
      await this.#files.unlink(path)
    } catch (error) {
      if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return
      this.#fail(error, `deleting blob ${key}`)
    }
    await this.#syncFolder(key.split('/').slice(0, -1).join('/')).catch((error) => this.#fail(error, `deleting blob ${key}`))
    failpoint('blob:deleted')
  }

  /** Closes the files that are kept open for reading. */
  async close(): Promise<void> {
    await this.#open.close()
  }

  #pathOf(key: string): string {
    return join(this.#root, key)
  }

  async #writeSynced(path: string, parts: readonly Uint8Array[]): Promise<void> {
    const file = await this.#files.open(path, 'wx', FILE_MODE)
    try {
      for (const part of parts) {
        let done = 0
        while (done < part.length) {
          const { bytesWritten } = await file.write(part, done, part.length - done)
          if (bytesWritten === 0) throw Object.assign(new Error('nothing was written'), { code: 'ENOSPC' })
          done += bytesWritten
        }
      }
      failpoint('blob:written')
      await file.sync()
      failpoint('blob:synced')
    } finally {
      await file.close()
    }
  }

  /** The key exists already: the same bytes are no conflict. */
  async #assertSame(key: string, parts: readonly Uint8Array[]): Promise<void> {
    const existing = await this.get(key)
    let at = 0
    for (const part of parts) {
      if (Buffer.compare(existing.subarray(at, at + part.length), part) !== 0) break
      at += part.length
    }
    const same = at === existing.length && at === parts.reduce((sum, part) => sum + part.length, 0)
    if (!same)
      throw new ServiceError('conflict', `Blob ${key} exists with other bytes, and blobs are never overwritten.`, { key })
  }

  /** Makes a folder and all above it, each durable before anything is put into it. */
  async #makeFolder(folder: string): Promise<void> {
    if (this.#folders.has(folder)) return
    if (folder !== '') await this.#makeFolder(folder.split('/').slice(0, -1).join('/'))
    const path = join(this.#root, folder)
    await this.#files.mkdir(path, { mode: FOLDER_MODE }).catch((error) => {
      if (codeOf(error) !== 'EEXIST') throw error
    })
    await this.#sync(join(path, '..'))
    this.#folders.add(folder)
  }

  #syncFolder(folder: string): Promise<void> {
    return this.#sync(join(this.#root, folder))
  }

  async #sync(path: string): Promise<void> {
    const folder = await this.#files.open(path, 'r')
    try {
      await folder.sync()
    } finally {
      await folder.close()
    }
  }

  async #sweep(): Promise<void> {
    const folder = join(this.#root, UNFINISHED)
    await this.#files.mkdir(folder, { mode: FOLDER_MODE }).catch((error) => {
      if (codeOf(error) !== 'EEXIST') throw error
    })
    for (const name of await this.#files.readdir(folder)) await this.#files.unlink(join(folder, name))
  }

  /** Keys below `folder` in order: a folder sorts as its name with the slash that follows it in every key. */
  async *#walk(folder: string, prefix: string): AsyncIterable<string> {
    const entries = await this.#files.readdir(join(this.#root, folder), { withFileTypes: true }).catch((error) => {
      if (codeOf(error) === 'ENOENT') return [] // deleted while we walk
      return this.#fail(error, 'listing blobs')
    })
    const paths = entries
      .filter(({ name }) => !name.startsWith('.'))
      .map((entry) => `${folder}${entry.name}${entry.isDirectory() ? '/' : ''}`)
      .filter((path) => path.startsWith(prefix) || (path.endsWith('/') && prefix.startsWith(path)))
      .sort()
    for (const path of paths) {
      if (path.endsWith('/')) yield* this.#walk(path, prefix)
      else yield path
    }
  }

  #failRead(error: unknown, key: string): never {
    const code = codeOf(error)
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'EISDIR')
      throw new ServiceError('not-found', `There is no blob ${key}.`, { key })
    this.#fail(error, `reading blob ${key}`)
  }

  /** Turns what the system says into our words. */
  #fail(error: unknown, doing: string): never {
    if (error instanceof ServiceError) throw error
    const code = codeOf(error) ?? 'unknown'
    if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG')
      throw new ServiceError(
        'no-space',
        `The store is full (${code} while ${doing}): free some space, then try again.`,
        { code },
        { cause: error },
      )
    if (code === 'ENOTDIR' || code === 'EISDIR')
      throw new ServiceError('conflict', `Another blob's key stands in the way of ${doing}.`, { code }, { cause: error })
    throw new ServiceError(
      'unavailable',
      `The store's disk failed (${code} while ${doing}): see the system's log, then try again.`,
      { code },
      { cause: error },
    )
  }
}

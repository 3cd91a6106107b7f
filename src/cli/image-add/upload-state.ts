import { createHash } from 'node:crypto'
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isServiceError, ServiceError } from '../../base/errors.ts'
import { lockFolder } from '../../base/folder-lock.ts'
import { DIGEST_BYTES } from '../../store/content/digests.ts'

/** A chunk in the state file: 0 not dealt with (or a hole), 1 zeros, 2 at the service; then its digest. */
export const RECORD_BYTES = 1 + DIGEST_BYTES
const PAGE_RECORDS = 8192
/** The service lets go of an upload that nobody touches for a week; so do we. */
const KEEP_MS = 8 * 24 * 3600 * 1000

/**
 * How far `image add` came with one file: a folder under the cache, with the service's name of the upload and, for each chunk,
 * what is known of it. Written without fsync: it must outlive the process, and whatever a power cut leaves out is sent again.
 */
export class UploadState {
  readonly #folder: string
  readonly #records: FileHandle
  readonly #unlock: () => void
  uploadId: string | undefined

  private constructor(folder: string, records: FileHandle, uploadId: string | undefined, unlock: () => void) {
    this.#unlock = unlock
    this.#folder = folder
    this.#records = records
    this.uploadId = uploadId
  }

  /**
   * @param key what must be the same for an upload to go on: file, service, project
   * @throws ServiceError `conflict` where another process has it
   */
  static async open(cacheFolder: string, key: readonly unknown[]): Promise<UploadState> {
    const uploads = join(cacheFolder, 'uploads')
    await mkdir(uploads, { recursive: true, mode: 0o700 })
    await forgetOld(uploads)
    const folder = join(uploads, createHash('sha256').update(JSON.stringify(key)).digest('hex').slice(0, 32))
    await mkdir(folder, { recursive: true })
    const unlock = lock(join(folder, 'lock'))
    const uploadId = await readFile(join(folder, 'upload'), 'utf8').catch(() => undefined)
    const records = await open(join(folder, 'chunks'), uploadId === undefined ? 'w+' : 'a+').then(async (file) => {
      // 'a+' made it where it was absent; positional writes need another mode
      await file.close()
      return open(join(folder, 'chunks'), 'r+')
    })
    return new UploadState(folder, records, uploadId, unlock)
  }

  /** From now on the records are those of this upload; what was recorded for another is forgotten. */
  async begin(uploadId: string): Promise<void> {
    if (this.uploadId === uploadId) return
    await this.forgetChunks()
    await writeFile(join(this.#folder, 'upload.new'), uploadId)
    await rename(join(this.#folder, 'upload.new'), join(this.#folder, 'upload'))
    this.uploadId = uploadId
  }

  forgetChunks(): Promise<void> {
    return this.#records.truncate(0)
  }

  /** @param records n × RECORD_BYTES */
  async record(firstChunk: number, records: Uint8Array): Promise<void> {
    await this.#records.write(records, 0, records.length, firstChunk * RECORD_BYTES)
  }

  /** n × RECORD_BYTES; what was never recorded is zeros. */
  async read(firstChunk: number, count: number): Promise<Uint8Array> {
    const out = Buffer.alloc(count * RECORD_BYTES)
    await this.#records.read(out, 0, out.length, firstChunk * RECORD_BYTES)
    return out
  }

  /** The file as its chunks, front to back: a digest, or null for zeros. */
  async *layout(chunks: number): AsyncIterable<Uint8Array | null> {
    for (let first = 0; first < chunks; first += PAGE_RECORDS) {
      const count = Math.min(PAGE_RECORDS, chunks - first)
      const page = await this.read(first, count)
      for (let at = 0; at < page.length; at += RECORD_BYTES)
        yield page[at] === 2 ? page.subarray(at + 1, at + RECORD_BYTES) : null
    }
  }

  /** Lets go; the next run can go on. */
  async close(): Promise<void> {
    await this.#records.close()
    this.#unlock()
  }

  /** The upload is done, or given up. */
  async forget(): Promise<void> {
    await this.#records.close()
    this.#unlock()
    await rm(this.#folder, { recursive: true, force: true })
  }
}

/** Lifted by the system when the process ends, however it ends. */
function lock(path: string): () => void {
  try {
    return lockFolder(path)
  } catch (cause) {
    if (!isServiceError(cause, 'conflict')) throw cause
    throw new ServiceError(
      'conflict',
      'this file is being sent already, by another imprint image add; wait for it, or stop it',
      {},
      { cause },
    )
  }
}

async function forgetOld(uploads: string): Promise<void> {
  for (const name of await readdir(uploads)) {
    const folder = join(uploads, name)
    const touched = await stat(join(folder, 'chunks')).catch(() => undefined)
    if (touched && Date.now() - touched.mtimeMs > KEEP_MS) await rm(folder, { recursive: true, force: true })
  }
}

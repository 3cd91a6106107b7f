import { createHash, type Hash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { type FileHandle, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'

/** The unfinished file, and the note beside it that says what it is part of. */
export class PartFile {
  readonly #path: string
  readonly #file: FileHandle
  readonly #note: string
  #etag: string | null
  #hashes: Map<string, Hash> | undefined
  bytes: number
  /** Of those, the ones that were there before. */
  resumedBytes: number

  private constructor(path: string, file: FileHandle, note: string, etag: string | null, bytes: number) {
    this.#path = path
    this.#file = file
    this.#note = note
    this.#etag = etag
    this.bytes = bytes
    this.resumedBytes = bytes
    if (bytes === 0) this.#restartHashes()
  }

  /** @param note what the file is part of: the bytes that are there are kept only where it says the same */
  static async open(path: string, note: object): Promise<PartFile> {
    const [said, etag = ''] = (await readFile(`${path}-of`, 'utf8').catch(() => '')).split('\n', 2)
    const mine = JSON.stringify(note)
    const bytes = said === mine ? ((await stat(path).catch(() => undefined))?.size ?? 0) : 0
    const kept = bytes > 0 && etag !== '' ? etag : null
    await writeFile(`${path}-of`, noteWith(mine, kept))
    const file = await open(path, bytes > 0 ? 'r+' : 'w+')
    return new PartFile(path, file, mine, kept, bytes)
  }

  /** Of the file elsewhere of which these bytes are; null where nobody said. */
  get etag(): string | null {
    return this.#etag
  }

  /** To be called before the first byte of that file is appended: the note says it before the bytes are there. */
  async beginWith(etag: string | null): Promise<void> {
    await this.truncate()
    await writeFile(`${this.#path}-of`, noteWith(this.#note, etag))
    this.#etag = etag
  }

  async append(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      done += (await this.#file.write(bytes, done, bytes.length - done, this.bytes + done)).bytesWritten
    }
    for (const hash of this.#hashes?.values() ?? []) hash.update(bytes)
    this.bytes += bytes.length
  }

  async truncate(): Promise<void> {
    if (this.bytes === 0) return
    await this.#file.truncate(0)
    this.bytes = 0
    this.resumedBytes = 0
    this.#restartHashes()
  }

  /** Computed in passing for a download in one piece, else by reading what is here. */
  async digest(algorithm: string): Promise<string> {
    const known = this.#hashes?.get(algorithm)
    if (known) return known.digest('hex')
    const hash = createHash(algorithm)
    for await (const bytes of createReadStream(this.#path, { highWaterMark: 1024 * 1024 })) hash.update(bytes as Buffer)
    return hash.digest('hex')
  }

  async finish(path: string): Promise<void> {
    await this.#file.sync()
    await rename(this.#path, path)
    await rm(`${this.#path}-of`, { force: true })
  }

  async discard(): Promise<void> {
    await rm(this.#path, { force: true })
    await rm(`${this.#path}-of`, { force: true })
  }

  close(): Promise<void> {
    return this.#file.close()
  }

  #restartHashes(): void {
    this.#hashes = new Map([['sha512', createHash('sha512')]])
  }
}

const noteWith = (note: string, etag: string | null): string => (etag === null ? note : `${note}\n${etag}`)

import { randomUUID } from 'node:crypto'
import { type FileHandle, open, rm, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { assertRange } from '../../disk/block/block-source.ts'

/** A file that no folder names: the system takes it back when it is closed, and when the process ends, however it ends. */
export class NamelessFile {
  readonly #file: FileHandle
  #bytes = 0

  private constructor(file: FileHandle) {
    this.#file = file
  }

  /** @param folder on whose file system it lies; a kill at this very moment leaves an empty file in it */
  static async create(folder: string): Promise<NamelessFile> {
    const path = join(folder, randomUUID())
    const file = await open(path, 'wx+', 0o600)
    try {
      await unlink(path)
    } catch (error) {
      await file.close()
      await rm(path, { force: true })
      throw error
    }
    return new NamelessFile(file)
  }

  /** One beyond its last byte. */
  get bytes(): number {
    return this.#bytes
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      done += (await this.#file.write(bytes, done, bytes.length - done, offset + done)).bytesWritten
    }
    this.#bytes = Math.max(this.#bytes, offset + bytes.length)
  }

  /** Exactly so many bytes. */
  async read(offset: number, length: number): Promise<Uint8Array> {
    assertRange(offset, length, this.#bytes)
    const bytes = Buffer.allocUnsafeSlow(length)
    for (let done = 0; done < length; ) {
      const { bytesRead } = await this.#file.read(bytes, done, length - done, offset + done)
      if (bytesRead === 0) throw new Error(`a scratch file ends at ${offset + done}, where ${this.#bytes} bytes were written`)
      done += bytesRead
    }
    return bytes
  }

  close(): Promise<void> {
    return this.#file.close()
  }
}

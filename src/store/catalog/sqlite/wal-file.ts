import { fstatSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'

/**
 * The `-wal` file of an open database, through a descriptor of our own: SQLite writes commits there without waiting for the
 * disk, and `sync` waits for all of them at once, off the thread that answers requests.
 */
export class WalFile {
  readonly #file: FileHandle

  /** @param database path of the database; its `-wal` stands for as long as a connection is open */
  static async open(database: string): Promise<WalFile> {
    return new WalFile(await open(`${database}-wal`, 'r'))
  }

  private constructor(file: FileHandle) {
    this.#file = file
  }

  /** Resolves when every commit before the call is on disk. After an error nothing is known of any of them: do not retry. */
  async sync(): Promise<void> {
    await this.#file.datasync()
  }

  /** Length in bytes, which grows until a checkpoint lets SQLite start again from the front. */
  bytes(): number {
    return fstatSync(this.#file.fd).size // 2 µs; asynchronously it would queue behind whatever the thread pool does
  }

  async close(): Promise<void> {
    await this.#file.close()
  }
}

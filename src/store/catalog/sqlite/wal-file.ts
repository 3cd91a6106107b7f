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
  async bytes(): Promise<number> {
    return (await this.#file.stat()).size
  }

  async close(): Promise<void> {
    await this.#file.close()
  }
}

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { failpoint } from '../../../base/failpoint.ts'
import type { BlobStore } from '../../blobs/blob-store.ts'
import type { Catalog, CatalogWriter, DocumentReader, ImageReader } from '../catalog.ts'
import type { JournalChange } from '../journal-change.ts'
import { DocumentStatements, SqlDocumentReader, SqlDocumentWriter } from '../sql-documents.ts'
import { ImageStatements, SqlImageReader, SqlImageWriter } from '../sql-images.ts'
import { migrate } from './migrations.ts'
import { toServiceError } from './sqlite-errors.ts'
import { SqliteSession, sqliteFlavour } from './sqlite-session.ts'

export interface SqliteCatalogOptions {
  /** The database file; its folder exists. `:memory:` is a database for tests, gone once it is closed. */
  readonly path: string
  /** Where changed records are also written; without it, a lost database is lost. */
  readonly journal?: BlobStore
}

export class SqliteCatalog implements Catalog {
  readonly images: ImageReader
  readonly documents: DocumentReader
  readonly #writer: DatabaseSync
  readonly #reader: DatabaseSync
  readonly #tx: CatalogWriter
  #changes: JournalChange[] = []
  #last: Promise<unknown> = Promise.resolve()
  readonly #discard: () => void

  static async open(options: SqliteCatalogOptions): Promise<SqliteCatalog> {
    return new SqliteCatalog(options)
  }

  private constructor({ path }: SqliteCatalogOptions) {
    const place = path === ':memory:' ? mkdtempSync(join(tmpdir(), 'imprint-catalog-')) : undefined
    const file = place ? join(place, 'catalog.db') : path
    this.#discard = () => {
      if (place) rmSync(place, { recursive: true, force: true })
    }
    process.once('exit', this.#discard)
    try {
      this.#writer = connect(file)
      migrate(this.#writer)
      this.#reader = connect(file)
    } catch (error) {
      throw toServiceError(error)
    }
    const images = new ImageStatements(sqliteFlavour)
    const documents = new DocumentStatements(sqliteFlavour)
    const [read, write] = [new SqliteSession(this.#reader), new SqliteSession(this.#writer)]
    const changed = (change: JournalChange) => this.#changes.push(change)
    this.images = new SqlImageReader(read, images)
    this.documents = new SqlDocumentReader(read, documents)
    this.#tx = {
      images: new SqlImageWriter(write, images, changed),
      documents: new SqlDocumentWriter(write, documents, changed),
    }
  }

  write<T>(work: (tx: CatalogWriter) => Promise<T>): Promise<T> {
    const done = this.#last.then(() => this.#alone(work))
    this.#last = done.catch(() => undefined)
    return done
  }

  async #alone<T>(work: (tx: CatalogWriter) => Promise<T>): Promise<T> {
    this.#changes = []
    this.#writer.exec('BEGIN IMMEDIATE')
    try {
      const result = await work(this.#tx)
      this.#writer.exec('COMMIT')
      failpoint('catalog:committed')
      return result
    } catch (error) {
      if (this.#writer.isTransaction) this.#writer.exec('ROLLBACK')
      throw toServiceError(error)
    }
  }

  async close(): Promise<void> {
    await this.#last
    this.#reader.close()
    this.#writer.close()
    process.off('exit', this.#discard)
    this.#discard()
  }
}

function connect(file: string): DatabaseSync {
  const database = new DatabaseSync(file)
  database.exec(`
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA temp_store = MEMORY;
    PRAGMA cache_size = -16384;
  `)
  return database
}

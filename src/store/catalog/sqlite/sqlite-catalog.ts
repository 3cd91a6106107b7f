import { mkdtempSync, rmSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { ServiceError } from '../../../base/errors.ts'
import { MiB } from '../../../base/units.ts'
import type { BlobStore } from '../../blobs/blob-store.ts'
import { CachedImages } from '../cached-images.ts'
import type { Catalog, CatalogWriter, DocumentReader, ImageReader } from '../catalog.ts'
import { DocumentCache } from '../document-cache.ts'
import { defaultLimits, Journal, type JournalLimits } from '../journal.ts'
import { documentKindOf } from '../journal-change.ts'
import { RecordCache } from '../record-cache.ts'
import { DocumentStatements, SqlDocumentReader, SqlDocumentWriter } from '../sql-documents.ts'
import { ImageStatements, SqlImageWriter } from '../sql-images.ts'
import { recordPages } from '../sql-records.ts'
import { Checkpointer } from './checkpointer.ts'
import { migrate } from './migrations.ts'
import { reconcile } from './reconcile.ts'
import { toServiceError } from './sqlite-errors.ts'
import { SqliteSession, sqliteFlavour } from './sqlite-session.ts'
import { WalFile } from './wal-file.ts'
import { type MakeWriter, WriteQueue } from './write-queue.ts'

export interface SqliteCatalogOptions {
  /** The database file; its folder exists. `:memory:` is a database for tests: never synced, and gone once it is closed. */
  readonly path: string
  /** Where changed records are also written. Without it a lost database is lost. */
  readonly journal?: BlobStore
  readonly journalLimits?: JournalLimits
  /** Is told what failed beside the requests (a compaction, a checkpoint), once for each failure. */
  readonly onProblem?: (error: unknown) => void
}

const CHECKPOINT_BYTES = 16 * MiB // of write-ahead log; a restart reads as much
const CHECKPOINT_AGAIN_BYTES = 4 * MiB // grown since the last checkpoint, which did not catch up
const PAUSE_BYTES = 64 * MiB // writes then wait until a checkpoint catches up
const BUSY_TIMEOUT_MS = 5_000 // while a checkpoint finishes; no other process should be there

/** The catalog in one SQLite file: a connection for writes and one for reads, both on this thread. */
export class SqliteCatalog implements Catalog {
  readonly images: ImageReader
  readonly documents: DocumentReader
  readonly #writer: DatabaseSync
  readonly #reader: DatabaseSync
  readonly #wal: WalFile
  readonly #queue: WriteQueue
  readonly #checkpointer: Checkpointer
  readonly #journal: Journal | undefined
  readonly #options: SqliteCatalogOptions
  readonly #readSession: SqliteSession
  #checkpointedBytes = 0
  #temporaryFolder: string | undefined

  /**
   * Opens the database, makes or migrates it, and brings it and the journal to the same transaction.
   * @throws ServiceError `unsupported` for a newer schema; `corrupt` for a damaged database or one older than its journal;
   *   `no-space`; `unavailable` when another process holds it
   */
  static async open(options: SqliteCatalogOptions): Promise<SqliteCatalog> {
    if (options.path === ':memory:') return SqliteCatalog.#openTemporary(options)
    const opened: { close(): unknown }[] = []
    try {
      const writer = connect(options.path)
      opened.push(writer)
      migrate(writer)
      const reader = connect(options.path)
      opened.push(reader)
      reader.exec('PRAGMA query_only = ON')
      const wal = await WalFile.open(options.path)
      opened.push(wal)
      await wal.sync()
      await syncFolder(dirname(options.path))
      const journal = options.journal && (await Journal.open(options.journal, options.journalLimits ?? defaultLimits))
      if (journal && options.journal) await reconcile(writer, journal, options.journal)
      return new SqliteCatalog(options, writer, reader, wal, journal)
    } catch (error) {
      for (const connection of opened.reverse()) await connection.close()
      throw toServiceError(error)
    }
  }

  static async #openTemporary(options: SqliteCatalogOptions): Promise<SqliteCatalog> {
    const folder = mkdtempSync(join(tmpdir(), 'imprint-catalog-'))
    temporaryFolders.add(folder)
    const catalog = await SqliteCatalog.open({ ...options, path: join(folder, 'catalog.db') })
    catalog.#temporaryFolder = folder
    return catalog
  }

  private constructor(
    options: SqliteCatalogOptions,
    writer: DatabaseSync,
    reader: DatabaseSync,
    wal: WalFile,
    journal: Journal | undefined,
  ) {
    this.#options = options
    this.#writer = writer
    this.#reader = reader
    this.#wal = wal
    this.#journal = journal
    this.#checkpointer = new Checkpointer(options.path)
    this.#readSession = new SqliteSession(reader)
    const images = new ImageStatements(sqliteFlavour)
    const documents = new DocumentStatements(sqliteFlavour)
    const committedImages = new CachedImages(this.#readSession, images, new RecordCache())
    const committedDocuments = new DocumentCache(new SqlDocumentReader(this.#readSession, documents))
    this.images = committedImages
    this.documents = committedDocuments
    const writeSession = new SqliteSession(writer)
    const makeWriter: MakeWriter = (changed, isOpen) => {
      const session = writeSession.whileOpen(isOpen)
      return {
        images: new SqlImageWriter(session, images, changed),
        documents: new SqlDocumentWriter(session, documents, changed),
      }
    }
    this.#queue = new WriteQueue({
      database: writer,
      makeWriter,
      sync: () => (this.#temporaryFolder ? Promise.resolve() : wal.sync()),
      journal,
      onCommit: (changes) => {
        for (const change of changes) {
          const kind = documentKindOf(change)
          if (kind === undefined) committedImages.forget()
          else committedDocuments.forget(kind)
        }
      },
      afterBatch: () => this.#keepHouse(),
    })
  }

  write<T>(work: (tx: CatalogWriter) => Promise<T>): Promise<T> {
    return this.#queue.write(work)
  }

  async close(): Promise<void> {
    await this.#queue.close()
    await this.#journal?.settled()
    await this.#checkpointer.close()
    await this.#wal.close()
    this.#reader.close()
    this.#writer.close() // the last connection checkpoints and removes the log
    if (this.#temporaryFolder) discard(this.#temporaryFolder)
  }

  /** Between two batches: checkpoints and compactions are started, and the log is kept from growing without end. */
  async #keepHouse(): Promise<void> {
    this.#journal?.compactIfDue(
      () => this.#durablePages(),
      (error) => this.#options.onProblem?.(error),
    )
    const walBytes = this.#wal.bytes()
    if (walBytes < this.#checkpointedBytes) this.#checkpointedBytes = 0 // SQLite has started the log anew
    if (walBytes < CHECKPOINT_BYTES || walBytes < this.#checkpointedBytes + CHECKPOINT_AGAIN_BYTES) return
    this.#checkpointedBytes = walBytes
    const checkpoint = this.#checkpointer.run().catch((error: unknown) => this.#checkpointFailed(error))
    if (walBytes >= PAUSE_BYTES) await checkpoint
  }

  #checkpointFailed(cause: unknown): void {
    const error = toServiceError(cause)
    this.#options.onProblem?.(error)
    if (error instanceof ServiceError && error.code !== 'no-space') this.#queue.poison(error)
  }

  async *#durablePages(): AsyncIterable<readonly string[]> {
    for await (const page of recordPages(this.#readSession, sqliteFlavour)) {
      await this.#queue.flushed()
      yield page
    }
  }
}

/** Of catalogs on `:memory:` that are still open. */
const temporaryFolders = new Set<string>()
process.once('exit', () => {
  for (const folder of temporaryFolders) discard(folder)
})
function discard(folder: string): void {
  rmSync(folder, { recursive: true, force: true })
  temporaryFolders.delete(folder)
}

/** Commits go to the write-ahead log without a sync; `WalFile` syncs it, and a worker checkpoints it. */
export function connect(path: string): DatabaseSync {
  const database = new DatabaseSync(path, { timeout: BUSY_TIMEOUT_MS })
  try {
    database.exec(`
      PRAGMA journal_mode = WAL;
      PRAGMA synchronous = NORMAL;
      PRAGMA wal_autocheckpoint = 0;
      PRAGMA journal_size_limit = ${CHECKPOINT_AGAIN_BYTES};
      PRAGMA temp_store = MEMORY;
      PRAGMA cache_size = -16384;
    `)
  } catch (error) {
    database.close()
    throw error
  }
  return database
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

import type { DatabaseSync } from 'node:sqlite'
import { ServiceError } from '../../../base/errors.ts'
import type { BlobStore } from '../../blobs/blob-store.ts'
import type { Journal } from '../journal.ts'
import type { JournalChange } from '../journal-change.ts'
import { replayJournal } from '../journal-replay.ts'
import { RecordRestorer, recordPages } from '../sql-records.ts'
import { SqliteSession, sqliteFlavour } from './sqlite-session.ts'

/**
 * Brings the database and the journal to the same transaction when a catalog is opened: what a killed process had committed
 * but not journalled is journalled now; a database put back from an older backup takes what the journal has after it.
 * @throws ServiceError `corrupt` when the database is older than what the journal still holds change by change
 */
export async function reconcile(database: DatabaseSync, journal: Journal, blobs: BlobStore): Promise<void> {
  const last = lastTransaction(database)
  if (journal.newest > last) return catchUp(database, journal, blobs, last)

  const outbox = database.prepare('SELECT n, lines FROM outbox WHERE n > ? ORDER BY n').iterate(journal.last)
  for (const { n, lines } of outbox) {
    await journal.append({ first: Number(n), last: Number(n) }, String(lines).split('\n'))
  }
  if (journal.last < last) {
    // a journal that is new, or has lost blobs: only all records together make it whole
    await journal.snapshot(() => recordPages(new SqliteSession(database), sqliteFlavour), last)
  }
  database.prepare('DELETE FROM outbox').run()
}

async function catchUp(database: DatabaseSync, journal: Journal, blobs: BlobStore, last: number): Promise<void> {
  const details = { databaseTransaction: last, journalTransaction: journal.newest }
  if (last === 0 || journal.start > last || journal.last < journal.newest) {
    const message = 'the catalog database is older than its journal: move it away and run `imprint store rebuild`'
    throw new ServiceError('corrupt', message, details)
  }
  const { problems } = await replayJournal(blobs, last, (changes) => restore(database, changes))
  if (problems.length > 0) {
    throw new ServiceError('corrupt', `the catalog's journal is damaged: ${problems.slice(0, 3).join('; ')}`, details)
  }
  database.prepare('DELETE FROM outbox').run()
  setLastTransaction(database, journal.newest)
}

/** Applies changes in one transaction. */
export async function restore(database: DatabaseSync, changes: readonly JournalChange[]): Promise<void> {
  const restorer = new RecordRestorer(new SqliteSession(database), sqliteFlavour)
  database.exec('BEGIN IMMEDIATE')
  try {
    for (const change of changes) await restorer.apply(change)
    database.exec('COMMIT')
  } catch (error) {
    if (database.isTransaction) database.exec('ROLLBACK')
    throw error
  }
}

/** The number of the last transaction that had something for the journal; 0 for none. */
export function lastTransaction(database: DatabaseSync): number {
  return Number(database.prepare("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").get()?.seq ?? 0)
}

export function setLastTransaction(database: DatabaseSync, n: number): void {
  database.exec("DELETE FROM sqlite_sequence WHERE name = 'outbox'")
  database.prepare("INSERT INTO sqlite_sequence (name, seq) VALUES ('outbox', ?)").run(n)
}

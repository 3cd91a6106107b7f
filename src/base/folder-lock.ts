import { DatabaseSync } from 'node:sqlite'
import { ServiceError } from './errors.ts'

/**
 * One process a folder. Node has no file locks, SQLite has: an exclusive transaction on an empty database is a lock that the
 * kernel lifts when the process ends, however it ends.
 * @param path the lock's own file; made where absent
 * @returns lifts the lock
 * @throws ServiceError `conflict` where another process holds it
 */
export function lockFolder(path: string): () => void {
  const lock = new DatabaseSync(path)
  try {
    lock.exec('PRAGMA journal_mode = DELETE')
    lock.exec('BEGIN EXCLUSIVE')
  } catch (cause) {
    lock.close()
    if ((cause as { errcode?: number }).errcode !== SQLITE_BUSY) throw cause
    throw new ServiceError(
      'conflict',
      'another Imprint uses this data folder; stop it first, or choose another folder with --data',
      {},
      { cause },
    )
  }
  return () => lock.close()
}
const SQLITE_BUSY = 5

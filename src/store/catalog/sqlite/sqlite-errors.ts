import { ServiceError } from '../../../base/errors.ts'

// result codes: sqlite3.h; the low byte is the primary code
const SQLITE_BUSY = 5
const SQLITE_IOERR = 10
const SQLITE_CORRUPT = 11
const SQLITE_FULL = 13
const SQLITE_NOTADB = 26
const SQLITE_IOERR_SHMSIZE = 10 | (19 << 8) // growing the -shm file: in practice, a full disk

/** SQLite's errors in our words; any other error is returned as it is. */
export function toServiceError(error: unknown): unknown {
  const code = sqliteCode(error)
  if (code === undefined) return error
  const details = { sqlite: code }
  const primary = code & 0xff
  if (primary === SQLITE_FULL || code === SQLITE_IOERR_SHMSIZE) {
    return new ServiceError(
      'no-space',
      "the catalog's disk is full, nothing was changed: free some space and try again",
      details,
      {
        cause: error,
      },
    )
  }
  if (primary === SQLITE_IOERR) {
    return new ServiceError('unavailable', "the catalog's disk failed to read or write: look at the system's log", details, {
      cause: error,
    })
  }
  if (primary === SQLITE_CORRUPT || primary === SQLITE_NOTADB) {
    return new ServiceError(
      'corrupt',
      'the catalog database is damaged: rebuild it from the journal with `imprint store rebuild`',
      details,
      {
        cause: error,
      },
    )
  }
  if (primary === SQLITE_BUSY) {
    return new ServiceError('unavailable', 'another process has locked the catalog: only one service may use it', details, {
      cause: error,
    })
  }
  return error
}

function sqliteCode(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('code' in error) || error.code !== 'ERR_SQLITE_ERROR') return undefined
  return 'errcode' in error && typeof error.errcode === 'number' ? error.errcode : undefined
}

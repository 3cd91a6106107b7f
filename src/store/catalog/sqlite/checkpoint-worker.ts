/** Worker thread: copies the write-ahead log into the database, with its fsyncs, so that no request waits for them. */
import { DatabaseSync } from 'node:sqlite'
import { parentPort, workerData } from 'node:worker_threads'

export interface CheckpointAnswer {
  /** The text of SQLite's error and its code; absent when the checkpoint went well. */
  readonly error?: { readonly message: string; readonly errcode: number }
}

if (parentPort) {
  const port = parentPort
  const database = new DatabaseSync(String(workerData))
  database.exec('PRAGMA wal_autocheckpoint = 0; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 10000')
  port.on('message', (message: 'checkpoint' | 'close') => {
    if (message === 'close') {
      database.close()
      port.close()
      return
    }
    port.postMessage(checkpoint(database))
  })
}

function checkpoint(database: DatabaseSync): CheckpointAnswer {
  try {
    database.prepare('PRAGMA wal_checkpoint(PASSIVE)').all()
    return {}
  } catch (error) {
    const errcode = error instanceof Error && 'errcode' in error ? Number(error.errcode) : 0
    return { error: { message: String(error), errcode } }
  }
}

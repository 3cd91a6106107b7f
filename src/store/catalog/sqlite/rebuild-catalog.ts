import { existsSync } from 'node:fs'
import { rename, rm } from 'node:fs/promises'
import { ServiceError } from '../../../base/errors.ts'
import type { BlobStore } from '../../blobs/blob-store.ts'
import { replayJournal } from '../journal-replay.ts'
import { migrate } from './migrations.ts'
import { restore, setLastTransaction } from './reconcile.ts'
import { connect } from './sqlite-catalog.ts'
import { toServiceError } from './sqlite-errors.ts'

export interface RebuildReport {
  readonly images: number
  readonly members: number
  readonly documents: number
  /** What of the journal could not be read, in sentences that name the blob. Empty: every record is back. */
  readonly problems: readonly string[]
}

/**
 * Makes the catalog's database again from its journal. What is ephemeral (tokens, upload sessions) is not in it. The file takes
 * its name only when it is whole.
 * @throws ServiceError `conflict` where a database stands at `path`; `not-found` where the journal holds nothing
 */
export async function rebuildCatalog({ path, journal }: { path: string; journal: BlobStore }): Promise<RebuildReport> {
  if (existsSync(path)) {
    throw new ServiceError(
      'conflict',
      'a catalog database stands there already: move it away first, with its -wal and -shm files',
    )
  }
  const unfinished = `${path}.rebuilding`
  const removeAll = async () => {
    for (const suffix of ['', '-wal', '-shm']) await rm(unfinished + suffix, { force: true })
  }
  await removeAll()
  try {
    const report = await fill(unfinished, journal)
    await rename(unfinished, path)
    return report
  } catch (error) {
    await removeAll()
    throw toServiceError(error)
  }
}

async function fill(path: string, journal: BlobStore): Promise<RebuildReport> {
  const database = connect(path)
  try {
    database.exec('PRAGMA wal_autocheckpoint = 4000')
    migrate(database)
    const { last, changes, problems } = await replayJournal(journal, 0, (some) => restore(database, some))
    if (changes === 0)
      throw new ServiceError('not-found', 'the blob store holds no journal of a catalog: check the folder or bucket')
    setLastTransaction(database, last)
    const count = (table: string) => Number(database.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.n)
    return { images: count('images'), members: count('image_members'), documents: count('documents'), problems }
  } finally {
    database.close() // checkpoints, with its syncs, and removes the log
  }
}
